"""Trust rules judged without training: groups of the base policy, then each rule's answer."""

from bpgo.config import offline
from bpgo.config.resolve import load_rules


rule groups:
    input:
        "{root}/prompts/train.jsonl",
    output:
        "{root}/trust/groups/{arm}/seed_{seed}.parquet",
    log:
        "{root}/logs/groups/{arm}/seed_{seed}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=lambda wildcards: offline.groups_digest(settings_of(wildcards.root), wildcards.arm),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/groups/{wildcards.arm:q}/"
        "seed_{wildcards.seed:q}.tsv"
        " python -m bpgo groups --config {params.config:q} --arm {wildcards.arm:q}"
        " --seed {wildcards.seed:q} --prompts {input:q} --output {output:q} --threads {threads}"
        " >> {log:q} 2>&1"


rule rules:
    input:
        groups=lambda wildcards: [
            f"{wildcards.root}/trust/groups/{arm}/seed_{seed}.parquet"
            for arm in offline.reference_arms(settings_of(wildcards.root))
            for seed in settings_of(wildcards.root).trust_groups.seeds
        ],
        calibrations=lambda wildcards: [
            f"{wildcards.root}/calibration/{name}/calibration.json"
            for name in settings_of(wildcards.root).experiments
        ],
    output:
        directory("{root}/trust/judged"),
    log:
        "{root}/logs/rules.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        files=lambda wildcards: files_of_jobs(wildcards.root),
        digest=lambda wildcards: offline.rules_digest(
            settings_of(wildcards.root),
            load_rules(
                configfiles_of(wildcards.root),
                settings_of(wildcards.root).scale,
                {} if wildcards.root in BESIDE else GIVEN,
            ),
        ),
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo rules --config {params.config:q} --configfile {params.files:q}"
        " --root {wildcards.root:q} --output {output:q} >> {log:q} 2>&1"


rule track:
    input:
        "{root}/trust/judged",
    output:
        report(
            "{root}/trust/index.html",
            caption="../report/trust.rst",
            category="Trust rules",
            labels={"page": "offline track"},
        ),
        expand("{{root}}/trust/trust.{kind}", kind=["csv", "md", "tex", "png", "pdf"]),
    log:
        "{root}/logs/track.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=analysis_digest,
        folder=subpath(output[0], parent=True),
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo track --config {params.config:q} --judged {input:q}"
        " --output {params.folder:q} >> {log:q} 2>&1"
