"""Samples of every policy, their scores, and all scores in one place."""


# Finished runs are sampled and scored before the next run starts (priority), so a mistake in a
# later step shows early.
rule sample:
    input:
        prompts="{root}/prompts/evaluation.jsonl",
        policy=policy_of,
    output:
        "{root}/samples/{experiment}/{arm}/seed_{seed}/index.parquet",
    log:
        "{root}/logs/sample/{experiment}/{arm}/seed_{seed}.log",
    priority: 10
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=sample_digest,
        policy=subpath(input.policy, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/sample/"
        "{wildcards.experiment:q}/{wildcards.arm:q}/seed_{wildcards.seed:q}.tsv"
        " python -m bpgo sample --config {params.config:q} --experiment {wildcards.experiment:q}"
        " --arm {wildcards.arm:q} --seed {wildcards.seed:q} --prompts {input.prompts:q}"
        " --run {params.policy:q} --output {params.folder:q} --threads {threads} >> {log:q} 2>&1"


# The untrained policy, once for all experiments.
rule sample_base:
    input:
        evaluation_prompts,
    output:
        "{root}/samples/base/seed_{seed}/index.parquet",
    log:
        "{root}/logs/sample/base/seed_{seed}.log",
    priority: 10
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=sample_digest,
        folder=subpath(output[0], parent=True),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/sample/base/seed_{wildcards.seed:q}.tsv"
        " python -m bpgo sample-base --config {params.config:q} --seed {wildcards.seed:q}"
        " --prompts {input:q} --output {params.folder:q} --threads {threads} >> {log:q} 2>&1"


rule score:
    input:
        samples=samples_of,
        calibration=scales_of,
    output:
        "{root}/scores/{experiment}/{arm}/seed_{seed}/{environment}.parquet",
    log:
        "{root}/logs/score/{experiment}/{arm}/seed_{seed}/{environment}.log",
    priority: 20
    conda:
        "../envs/{environment}.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=score_digest,
        calibration=given_scales,
        folder=subpath(input.samples, parent=True),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/score/"
        "{wildcards.experiment:q}/{wildcards.arm:q}/seed_{wildcards.seed:q}/"
        "{wildcards.environment:q}.tsv"
        " python -m bpgo score --config {params.config:q} --experiment {wildcards.experiment:q}"
        " --arm {wildcards.arm:q} --seed {wildcards.seed:q} --samples {params.folder:q}"
        " --environment {wildcards.environment:q} {params.calibration:q} --output {output:q}"
        " --threads {threads}"
        " >> {log:q} 2>&1"


# What no score tells: how far the policy has moved, how alike its samples are to each other and to
# the untrained policy's.
rule harm:
    input:
        prompts="{root}/prompts/evaluation.jsonl",
        policy=policy_of,
        samples=samples_of,
        base="{root}/samples/base/seed_{seed}/index.parquet",
    output:
        "{root}/harm/{experiment}/{arm}/seed_{seed}.parquet",
    log:
        "{root}/logs/harm/{experiment}/{arm}/seed_{seed}.log",
    priority: 15
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=harm_digest,
        policy=subpath(input.policy, parent=True),
        samples=subpath(input.samples, parent=True),
        base=subpath(input.base, parent=True),
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/harm/"
        "{wildcards.experiment:q}/{wildcards.arm:q}/seed_{wildcards.seed:q}.tsv"
        " python -m bpgo harm --config {params.config:q} --experiment {wildcards.experiment:q}"
        " --arm {wildcards.arm:q} --seed {wildcards.seed:q} --prompts {input.prompts:q}"
        " --run {params.policy:q} --samples {params.samples:q} --base {params.base:q}"
        " --output {output:q} --threads {threads} >> {log:q} 2>&1"


rule harm_base:
    input:
        evaluation_prompts,
    output:
        "{root}/harm/base/seed_{seed}.parquet",
    log:
        "{root}/logs/harm/base/seed_{seed}.log",
    priority: 15
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
    params:
        config=settings_file,
        digest=harm_digest,
    shell:
        "python -S -m bpgo.run.job --gpus {resources.gpu:q}"
        " --benchmark {wildcards.root:q}/benchmarks/harm/base/seed_{wildcards.seed:q}.tsv"
        " python -m bpgo harm-base --config {params.config:q} --seed {wildcards.seed:q}"
        " --prompts {input:q} --output {output:q} --threads {threads} >> {log:q} 2>&1"


rule collect:
    input:
        unpack(collectable),
    output:
        expand("{{root}}/collected/{name}.parquet", name=COLLECTED),
        "{root}/collected/runs.json",
    log:
        "{root}/logs/collect.log",
    conda:
        "../envs/main.yaml"
    params:
        config=settings_file,
        digest=lambda wildcards: settings_of(wildcards.root).digest(),
        mixed=["--allow-mixed"] if ALLOW_MIXED.lower() == "true" else [],
        folder=subpath(output[0], parent=True),
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo collect --config {params.config:q} --root {wildcards.root:q}"
        " {params.mixed:q} --output {params.folder:q} >> {log:q} 2>&1"
