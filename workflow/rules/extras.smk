"""Made on request: every arm for a few iterations, tuning, weights from nothing, the benchmark."""


include: "arms.smk"
include: "tune.smk"


PARTS = f"{ROOT}/pretrain_parts/seed_{PRETRAIN_SEED}"


# Stages side by side: after the first, the policy's third course and the rewards of each world.
# One thread, as for the shipped weights: another number of threads gives other last bits.
rule pretrain_stage:
    input:
        lambda wildcards: [] if wildcards.stage in ("first", "video") else f"{PARTS}/first",
    output:
        directory(f"{PARTS}/{{stage}}"),
    log:
        f"{ROOT}/logs/pretrain/seed_{PRETRAIN_SEED}/{{stage}}.log",
    wildcard_constraints:
        stage="first|policy|video|ambiguous|control|hidden|clear",
    conda:
        "../envs/main.yaml"
    threads: 1
    params:
        first=lambda wildcards, input: ["--first", input[0]] if input else [],
        seed=PRETRAIN_SEED,
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo pretrain --stage {wildcards.stage:q} {params.first:q}"
        " --seed {params.seed:q} --output {output:q} --threads {threads} >> {log:q} 2>&1"


# The video world has one set of weights, which is shipped.
rule pretrain:
    input:
        expand(
            f"{PARTS}/{{stage}}",
            stage=[
                *("policy", "ambiguous", "control", "hidden", "clear"),
                *(["video"] if PRETRAIN_SEED == "0" else []),
            ],
        ),
    output:
        directory(f"{ROOT}/pretrain/seed_{PRETRAIN_SEED}"),
    log:
        f"{ROOT}/logs/pretrain/seed_{PRETRAIN_SEED}.log",
    conda:
        "../envs/main.yaml"
    params:
        parts=lambda wildcards, input: [word for part in input for word in ("--part", part)],
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo pretrain --output {output:q} {params.parts:q} >> {log:q} 2>&1"


# Takes every core, so that nothing else disturbs its timings.
rule bench:
    output:
        directory(f"{ROOT}/bench"),
    log:
        f"{ROOT}/logs/bench.log",
    conda:
        "../envs/main.yaml"
    threads: EVERY_CORE
    params:
        file=measured_file,
    shell:
        "python -m bpgo bench --configfile {params.file:q} --output {output:q} >> {log:q} 2>&1"
