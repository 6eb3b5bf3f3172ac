"""Equal tuning: every arm's candidates are trained, sampled and scored as arms; here one is chosen."""


rule tune:
    input:
        expand(f"{TUNED}/collected/{{name}}.parquet", name=COLLECTED),
        f"{TUNED}/collected/runs.json",
    output:
        expand(f"{TUNED}/tuning.{{kind}}", kind=["csv", "md", "tex", "png", "pdf"]),
        expand(f"{TUNED}/{{name}}", name=["search.csv", "chosen.yaml", "index.html"]),
    log:
        f"{TUNED}/logs/tune.log",
    conda:
        "../envs/main.yaml"
    params:
        config=lambda wildcards: settings_path(TUNED),
        digest=lambda wildcards: f"{settings_of(TUNED).digest()} {analysis_code()}",
        collected=lambda wildcards: f"{TUNED}/collected",
        folder=lambda wildcards: TUNED,
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo tune --config {params.config:q} --collected {params.collected:q}"
        " --output {params.folder:q} >> {log:q} 2>&1"
