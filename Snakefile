"""RL post-training under untrustworthy reward models: from prompts to tables and figures.

`snakemake --cores all` runs the embedded default; `--configfile` names another experiment.
"""

import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")
sys.path.insert(0, str(workflow.basedir))

if not workflow.configfiles:  # a file given on the command line replaces the default

    configfile: Path(workflow.basedir) / "config" / "config.yaml"


include: "workflow/rules/common.smk"


wildcard_constraints:
    root=ROOTS,
    experiment="[a-z0-9_]+",
    arm="[a-z0-9_]+",
    environment="[a-z0-9_]+",
    sampler="[a-z0-9_]+",
    split="train|evaluation",
    seed="[0-9]+",


localrules:
    all,
    smoke,
    video,
    video_smoke,
    figures,
    reference,
    trust,
    trust_smoke,


rule all:
    input:
        lambda wildcards: products(ROOT),


rule smoke:
    input:
        lambda wildcards: products(SMOKE),


rule video:
    input:
        lambda wildcards: products(*VIDEO),


rule video_smoke:
    input:
        lambda wildcards: products(*VIDEO_SMOKE),


rule trust:
    input:
        f"{ROOT}/trust/index.html",


rule trust_smoke:
    input:
        f"{SMOKE}/trust/index.html",


rule figures:
    input:
        lambda wildcards: stored_products("figures", ROOT, ROOT),


rule reference:
    input:
        lambda wildcards: stored_products("reference", REFERENCE, *REBUILT),


include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/extras.smk"
include: "workflow/rules/trust.smk"
include: "workflow/rules/instrument.smk"
