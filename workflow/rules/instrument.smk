"""A search of training settings by two anchors, on tuning seeds: a job for each candidate and seed."""


include: "search.smk"


rule candidate:
    output:
        f"{ROOT}/instrument/runs/{{candidate}}/seed_{{seed}}.json",
    log:
        f"{ROOT}/logs/instrument/{{candidate}}/seed_{{seed}}.log",
    wildcard_constraints:
        candidate="[a-z0-9_]+",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: min(1, settings_of(ROOT).machine.gpus),
    params:
        files=lambda wildcards: files_of_jobs(ROOT),
        search=lambda wildcards: search_file(),
        digest=candidate_digest,
        folder=lambda wildcards: f"{ROOT}/instrument",
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " python -m bpgo instrument --config {params.files:q} --search {params.search:q}"
        " --only {wildcards.candidate:q} --seed {wildcards.seed:q} --output {params.folder:q}"
        " --threads {threads} >> {log:q} 2>&1"


# Everything is measured when it starts: it makes the table and the figure.
rule instrument:
    input:
        lambda wildcards: [
            f"{ROOT}/instrument/runs/{name}/seed_{seed}.json"
            for name in search().settings
            for seed in search().sizes.seeds
        ],
    output:
        expand(f"{ROOT}/instrument/instrument.{{kind}}", kind=["csv", "md", "tex", "png", "pdf"]),
        f"{ROOT}/instrument/courses.csv",
    log:
        f"{ROOT}/logs/instrument.log",
    conda:
        "../envs/main.yaml"
    params:
        files=lambda wildcards: files_of_jobs(ROOT),
        search=lambda wildcards: search_file(),
        code=lambda wildcards: analysis_code(),
        folder=lambda wildcards: f"{ROOT}/instrument",
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo instrument --config {params.files:q} --search {params.search:q}"
        " --output {params.folder:q} >> {log:q} 2>&1"
