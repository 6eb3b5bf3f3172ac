"""Prompts, the base policy's samples of them and its rewards, and training."""


rule prompts:
    output:
        "{root}/prompts/{split}.jsonl",
    log:
        "{root}/logs/prompts/{split}.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=lambda wildcards: jobs.prompts_digest(settings_of(wildcards.root), wildcards.split),
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo prompts --config {params.config:q} --split {wildcards.split:q}"
        " --output {output:q} >> {log:q} 2>&1"


# Once for all experiments whose reference arms have the same sampler.
rule draw:
    input:
        "{root}/prompts/train.jsonl",
    output:
        "{root}/draws/{sampler}/draws.json",
    log:
        "{root}/logs/draw/{sampler}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=draw_digest,
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/draw/{wildcards.sampler:q}.tsv"
        " python -m bpgo draw --config {params.config:q} --sampler {wildcards.sampler:q}"
        " --prompts {input:q} --output {output:q} --threads {threads} >> {log:q} 2>&1"


# What training needs, and no more: its digest knows no judges. The scores are kept for `judge`.
rule calibrate:
    input:
        prompts="{root}/prompts/train.jsonl",
        draws=draws_of,
    output:
        scores="{root}/calibration/{experiment}/scores.parquet",
        calibration="{root}/calibration/{experiment}/calibration.json",
    log:
        "{root}/logs/calibrate/{experiment}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=calibration_digest,
        folder=subpath(output.calibration, parent=True),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/calibrate/{wildcards.experiment:q}.tsv"
        " python -m bpgo calibrate --config {params.config:q} --experiment {wildcards.experiment:q}"
        " --prompts {input.prompts:q} --draws {input.draws:q} --output {params.folder:q}"
        " --threads {threads} >> {log:q} 2>&1"


rule judge:
    input:
        prompts="{root}/prompts/train.jsonl",
        draws=draws_of,
        scores="{root}/calibration/{experiment}/scores.parquet",
        calibration="{root}/calibration/{experiment}/calibration.json",
    output:
        samples="{root}/calibration/{experiment}/samples.parquet",
        scales="{root}/calibration/{experiment}/scales.json",
    log:
        "{root}/logs/judge/{experiment}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=judging_digest,
        folder=subpath(output.scales, parent=True),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/judge/{wildcards.experiment:q}.tsv"
        " python -m bpgo judge --config {params.config:q} --experiment {wildcards.experiment:q}"
        " --prompts {input.prompts:q} --draws {input.draws:q}"
        " --calibration {input.calibration:q} --output {params.folder:q} --threads {threads}"
        " >> {log:q} 2>&1"


# The run's folder also holds its resumable state. The state is no output: Snakemake deletes
# outputs before a job starts, and an interrupted run must find its state again.
rule train:
    input:
        check_gpus,
        prompts="{root}/prompts/train.jsonl",
        calibration="{root}/calibration/{experiment}/calibration.json",
    output:
        manifest="{root}/runs/{experiment}/{arm}/seed_{seed}/manifest.json",
        metrics="{root}/runs/{experiment}/{arm}/seed_{seed}/metrics.parquet",
        rollouts="{root}/runs/{experiment}/{arm}/seed_{seed}/rollouts.parquet",
    log:
        "{root}/logs/train/{experiment}/{arm}/seed_{seed}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=training_gpus,
    params:
        config=settings_file,
        digest=run_digest,
        folder=subpath(output.manifest, parent=True),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/train/"
        "{wildcards.experiment:q}/{wildcards.arm:q}/seed_{wildcards.seed:q}.tsv"
        " python -m bpgo train --config {params.config:q} --experiment {wildcards.experiment:q}"
        " --arm {wildcards.arm:q} --seed {wildcards.seed:q} --prompts {input.prompts:q}"
        " --calibration {input.calibration:q} --output {params.folder:q} --threads {threads}"
        " --record-failure --code {wildcards.root:q}/config/code.json"
        " >> {log:q} 2>&1"
