"""What each command imports, so that a server has it before it forks the command's process.

A list that lacks a module costs time and changes nothing: the job imports it itself.
"""

from __future__ import annotations

from importlib import import_module

from bpgo import registry

LEAN = "bpgo.run.lean_import"
COMMAND_LINE = "bpgo.cli"
# Settings are read first, with the classes of all that they may name.
SETTINGS = (
    COMMAND_LINE,
    "bpgo.config.resolve",
    *(
        module
        for modules in (
            registry.ARMS,
            registry.TRUST,
            registry.REWARDS,
            registry.FEATURES,
            registry.PROMPTS,
        )
        for module in modules.values()
    ),
)
TABLES = ("pandas", "pyarrow.parquet", "pyarrow.dataset")
POLICY = ("torch", "bpgo.core.trainer", *TABLES, LEAN)
REWARDS = ("safetensors.torch", "bpgo.scenes.image.level", "bpgo.scenes.video.reward_models")
STATISTICS = (*TABLES, "bpgo.analysis.statistics.compute")
COMMANDS = {
    "prompts": ("bpgo.steps.prompts",),
    "draw": (*POLICY, "bpgo.steps.draw"),
    "calibrate": (*POLICY, *REWARDS, "bpgo.steps.calibrate"),
    "judge": (*TABLES, "bpgo.steps.judge"),
    "train": (*POLICY, *REWARDS, "bpgo.steps.train"),
    "sample": (*POLICY, "bpgo.steps.sample"),
    "sample-base": (*POLICY, "bpgo.steps.sample"),
    "harm": (*POLICY, "bpgo.steps.harm"),
    "harm-base": (*POLICY, "bpgo.steps.harm"),
    "score": ("torch", *TABLES, *REWARDS, "bpgo.steps.score"),
    "collect": (*TABLES, "bpgo.analysis.collect"),
    "statistics": STATISTICS,
    "tables": (*STATISTICS, "bpgo.analysis.tables.make"),
    "plots": (*STATISTICS, "bpgo.analysis.figures.make"),
    "grids": (*TABLES, "bpgo.analysis.grids"),
    "report": (*STATISTICS, "bpgo.analysis.figures.make", "bpgo.analysis.report"),
    # Imports all of diffusers and transformers, for seconds and with threads, and works for hours.
    "pretrain": (),
}


def modules_of(words: list[str]) -> tuple[str, ...]:
    """What a command imports, in the order in which it needs it.

    Args:
        words: as `python -m` takes them. The first one of our commands counts.
    """
    command = next((word for word in words if word in COMMANDS), "")
    return (*SETTINGS, *COMMANDS.get(command, ()))


def load(module: str, kinds: tuple[str, ...]) -> None:
    """Import a module; with the lean import, the classes of these kinds of models.

    The command line's is left with all commands made.

    Args:
        module: one of `modules_of`.
        kinds: see `bpgo.run.lean_import`; with none, diffusers is left to the jobs.
    """
    found = import_module(module)
    if module == COMMAND_LINE:
        found.all_commands()
    if module == LEAN and kinds:
        found.import_lean(*kinds)
        for kind in kinds:
            import_module(registry.MODELS[kind])
