"""From stored scores to what people read. Nothing here trains, samples or needs torch."""


rule statistics:
    input:
        stored_scores,
    output:
        directory("{root}/statistics"),
    log:
        "{root}/logs/statistics.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
        folder=lambda wildcards: collected_folder(wildcards.root),
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo statistics --config {params.config:q} --collected {params.folder:q}"
        " --output {output:q} >> {log:q} 2>&1"


rule tables:
    input:
        "{root}/statistics",
    output:
        [
            report(
                f"{{root}}/tables/{name}.csv",
                caption=f"../report/table_{name}.rst",
                category="Tables",
                labels={"table": name},
            )
            for name in TABLES
        ],
        expand("{{root}}/tables/{name}.{kind}", name=TABLES, kind=["md", "tex"]),
    log:
        "{root}/logs/tables.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
        folder=subpath(output[0], parent=True),
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo tables --config {params.config:q} --statistics {input:q}"
        " --output {params.folder:q} >> {log:q} 2>&1"


rule plots:
    input:
        statistics="{root}/statistics",
        collected=stored_scores,
    output:
        [
            report(
                f"{{root}}/figures/{name}.png",
                caption=f"../report/figure_{name}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name in FIGURES
        ],
        expand("{{root}}/figures/{name}.pdf", name=FIGURES),
    log:
        "{root}/logs/plots.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
        collected=lambda wildcards: collected_folder(wildcards.root),
        folder=subpath(output[0], parent=True),
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo plots --config {params.config:q} --statistics {input.statistics:q}"
        " --collected {params.collected:q} --output {params.folder:q} >> {log:q} 2>&1"


rule grids:
    input:
        lambda wildcards: sample_files(wildcards.root),
    output:
        report(
            directory("{root}/grids"),
            patterns=["{experiment}.png"],
            caption="../report/grid.rst",
            category="Samples",
            labels={"experiment": "{experiment}"},
        ),
    log:
        "{root}/logs/grids.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        samples=lambda wildcards: f"{wildcards.root}/samples",
        digest=analysis_digest,
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo grids --config {params.config:q} --samples-root {params.samples:q}"
        " --output {output:q} >> {log:q} 2>&1"


rule report:
    input:
        statistics="{root}/statistics",
        tables=expand("{{root}}/tables/{name}.csv", name=TABLES),
        figures=expand("{{root}}/figures/{name}.png", name=FIGURES),
        grids=lambda wildcards: f"{wildcards.root}/grids" if has_grids(wildcards.root) else [],
    output:
        report(
            "{root}/report/index.html",
            caption="../report/report.rst",
            category="Report",
            labels={"page": "whole comparison"},
        ),
    log:
        "{root}/logs/report.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
        tables=lambda wildcards: f"{wildcards.root}/tables",
        figures=lambda wildcards: f"{wildcards.root}/figures",
        grids=lambda wildcards, input: ["--grids", str(input.grids)] if input.grids else [],
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo report --config {params.config:q} --statistics {input.statistics:q}"
        " --tables {params.tables:q} --figures {params.figures:q} {params.grids:q}"
        " --root {wildcards.root:q} --output {output:q} >> {log:q} 2>&1"
