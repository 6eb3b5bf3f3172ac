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
        "python -m bpgo statistics --config {params.config:q} --collected {params.folder:q}"
        " --output {output:q} >> {log:q} 2>&1"


rule tables:
    input:
        "{root}/statistics",
    output:
        report(directory("{root}/tables"), patterns=["{name}.csv"], category="Tables"),
    log:
        "{root}/logs/tables.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
    shell:
        "python -m bpgo tables --config {params.config:q} --statistics {input:q}"
        " --output {output:q} >> {log:q} 2>&1"


rule plots:
    input:
        statistics="{root}/statistics",
        collected=stored_scores,
    output:
        report(directory("{root}/figures"), patterns=["{name}.png"], category="Figures"),
    log:
        "{root}/logs/plots.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
        folder=lambda wildcards: collected_folder(wildcards.root),
    shell:
        "python -m bpgo figures --config {params.config:q} --statistics {input.statistics:q}"
        " --collected {params.folder:q} --output {output:q} >> {log:q} 2>&1"


rule grids:
    input:
        lambda wildcards: sample_files(wildcards.root),
    output:
        report(directory("{root}/grids"), patterns=["{name}.png"], category="Samples"),
    log:
        "{root}/logs/grids.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        samples=lambda wildcards: f"{wildcards.root}/samples",
        digest=analysis_digest,
    shell:
        "python -m bpgo grids --config {params.config:q} --samples-root {params.samples:q}"
        " --output {output:q} >> {log:q} 2>&1"


rule report:
    input:
        statistics="{root}/statistics",
        tables="{root}/tables",
        figures="{root}/figures",
        grids=lambda wildcards: f"{wildcards.root}/grids" if has_grids(wildcards.root) else [],
    output:
        report("{root}/report/index.html", category="Report"),
    log:
        "{root}/logs/report.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
        grids=lambda wildcards, input: ["--grids", str(input.grids)] if input.grids else [],
    shell:
        "python -m bpgo report --config {params.config:q} --statistics {input.statistics:q}"
        " --tables {input.tables:q} --figures {input.figures:q} {params.grids:q}"
        " --root {wildcards.root:q} --output {output:q} >> {log:q} 2>&1"
