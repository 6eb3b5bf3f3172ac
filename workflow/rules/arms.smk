"""Every arm of the folder `arms`, trained for a few iterations: on images and on clips."""


localrules:
    smoke_arms,


# Each run stops by itself where first ratios are not 1 or a number is not finite.
rule smoke_arms:
    input:
        lambda wildcards: [
            f"{root}/runs/{run.folder}/manifest.json"
            for root in ARM_SMOKE
            for run in settings_of(root).runs()
        ],
