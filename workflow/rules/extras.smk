"""Made on request: the shipped weights, from nothing, and the benchmark."""


# One thread, as for the shipped weights: another number of threads gives other last bits.
rule pretrain_world:
    output:
        directory(f"{ROOT}/pretrain_parts/{{world}}"),
    log:
        f"{ROOT}/logs/pretrain_{{world}}.log",
    wildcard_constraints:
        world="images|video",
    conda:
        "../envs/main.yaml"
    threads: 1
    shell:
        "python -S -m bpgo.run.job"
        " python -m bpgo pretrain --world {wildcards.world:q} --output {output:q}"
        " --threads {threads} >> {log:q} 2>&1"


rule pretrain:
    input:
        expand(f"{ROOT}/pretrain_parts/{{world}}", world=["images", "video"]),
    output:
        directory(f"{ROOT}/pretrain"),
    log:
        f"{ROOT}/logs/pretrain.log",
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
        file=Path(workflow.configfiles[0]),
    shell:
        "python -m bpgo bench --configfile {params.file:q} --output {output:q} >> {log:q} 2>&1"
