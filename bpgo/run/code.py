"""The code that a training run computes with: what its commands import, file by file."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bpgo import registry
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.files import read_json, repository_root, text_digest, write_json

PACKAGES = ("bpgo", "baselines")
# What makes a run's inputs, and the run. They ask the registry for the rest by its name.
COMMANDS = ("prompts", "draw", "calibrate", "train")
REGISTRY = "bpgo/registry.py"
# It reads what the machine is, for manifests and plans; no number of a run depends on it.
NOT_PART_OF_A_RUN = ("bpgo/run/machine.py",)


def code_of(settings: Settings, run: Run) -> dict[str, str]:
    """Digest by file of all code that decides one run, and the module of each registered name.

    The files are those that the commands of `COMMANDS`, the arm's algorithm, its trust rule, the
    rewards, the model and the prompts import, whatever these import in turn: found by reading
    imports, those inside functions too, without importing. What is registered beside them does not
    count, so a new arm or reward leaves the code of other runs as it is; of the registry counts
    what is not its tables.

    Two runs are of one code where all entries that both have are the same.
    """
    used = _registered(settings, run)
    roots = [*(f"bpgo.steps.{name}" for name in COMMANDS), *used.values()]
    files = {file: _digest(repository_root(), file) for file in imported(roots)}
    return {**dict(sorted(files.items())), **dict(sorted(used.items()))}


def digest_of_code(code: dict[str, str]) -> str:
    """One digest of all entries (16 hexadecimal digits)."""
    return text_digest("\n".join(f"{name} {digest}" for name, digest in sorted(code.items())))


def save_code(codes: Iterable[dict[str, str]], path: Path) -> None:
    """Write what `codes` have together, for runs that start later (`check_code`)."""
    write_json(path, {name: digest for code in codes for name, digest in code.items()})


def check_code(settings: Settings, run: Run, path: Path) -> None:
    """Refuse a run whose code was edited since `save_code` wrote `path`.

    Raises:
        UserError: naming the file. `collect` would refuse the run, once it is trained.
    """
    before = read_json(path) if path.is_file() else {}
    for name, digest in code_of(settings, run).items():
        if before.get(name, digest) != digest:
            raise UserError(
                f"{name} was edited since this call of Snakemake started: it was {before[name]}, it"
                f" is {digest}. Its runs would not belong in one table: start the call again, or"
                " join them all the same with --config allow_mixed=true"
            )


def imported(modules: Iterable[str]) -> list[str]:
    """The files of `modules` and of all that they import of our packages, sorted."""
    root, waiting, found = repository_root(), list(modules), set[str]()
    while waiting:
        file = _file_of(root, waiting.pop())
        if file is not None and file not in found:
            found.add(file)
            waiting += _imports(root, file)
    return sorted(found.difference(NOT_PART_OF_A_RUN))


def _registered(settings: Settings, run: Run) -> dict[str, str]:
    """Module by registered name, such as `ARMS.grpo`, of what a run takes from the registry."""
    arm: Any = settings.arms[run.arm]
    experiment = settings.experiments[run.experiment]
    rewards = settings.settings_of([experiment.training_reward, *experiment.diagnostics])
    kinds = {
        "ARMS": {arm.algorithm},
        "TRUST": set(_rules(getattr(arm, "trust", None))),
        "REWARDS": {reward.kind for reward in rewards.values()},
        "FEATURES": {each.kind for each in [getattr(arm, "features", None)] if each},
        "MODELS": {settings.model.kind},
        "PROMPTS": {settings.prompts.kind},
    }
    return {
        f"{table}.{name}": getattr(registry, table)[name]
        for table, names in kinds.items()
        for name in sorted(names)
    }


def _rules(rule: Any) -> Iterator[str]:
    """Names of an arm's trust rule and of those inside it."""
    while rule is not None:
        yield rule.rule
        rule = getattr(rule, "of", None)


@cache
def _file_of(root: Path, module: str) -> str | None:
    """Where a module of our packages lies below `root`; None for anything else."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return None
    for path in (Path(*parts, "__init__.py"), Path(*parts).with_suffix(".py")):
        if (root / path).is_file():
            return path.as_posix()
    return None


@cache
def _imports(root: Path, file: str) -> tuple[str, ...]:
    """Every name that a file imports, taken for a module, and the packages that these are in."""
    waiting: list[ast.AST] = [ast.parse((root / file).read_bytes(), file)]
    package = file.split("/")[:-1]
    found: list[str] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        else:
            waiting += [each for each in ast.iter_child_nodes(node) if isinstance(each, _HOLDERS)]
    ours = [name for name in found if name.split(".")[0] in PACKAGES]
    packages = {name[: match.start()] for name in ours for match in re.finditer(r"\.", name)}
    return tuple(sorted({*ours, *packages}))


# What may hold an import: statements, and the branches of those that have several.
_HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)


@cache
def _digest(root: Path, file: str) -> str:
    text = (root / file).read_bytes()
    if file == REGISTRY:
        text = _without_tables(text)
    return hashlib.sha256(text).hexdigest()[:16]


def _without_tables(text: bytes) -> bytes:
    """A module's lines without the mappings that stand at its top level."""
    tables = {
        line
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = text.splitlines(keepends=True)
    return b"".join(line for number, line in enumerate(lines, 1) if number not in tables)
