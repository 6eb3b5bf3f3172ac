"""`python -m bpgo doctor`: ask the machine, judge the configurations, print."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from bpgo.config import resolve as config
from bpgo.config.overlays import Files
from bpgo.config.search import SEARCH
from bpgo.run.machine import Machine, this_machine
from bpgo.storage.files import repository_root
from bpgo.tools.doctor.software import SHOWN, Environment, Package, environments, packages
from bpgo.tools.doctor.verdict import Verdict, judge
from bpgo.tools.screen import gigabytes, show, table


@dataclass(frozen=True)
class Examination:
    """All that the doctor found; the first verdict is the chosen configuration's."""

    machine: Machine
    packages: list[Package]
    environments: list[Environment]
    token: bool
    verdicts: list[Verdict]

    @property
    def exit_code(self) -> int:
        """0: everything the chosen configuration needs is here; 1: something is missing."""
        return 0 if self.verdicts[0].ready else 1


def doctor(configfile: Files, json_wanted: bool) -> int:
    """The command: print what was found; the exit code."""
    found = examine(configfile)
    if json_wanted:
        print(json.dumps(as_json(found), indent=2, default=str))
    else:
        show(report(found))
    return found.exit_code


def examine(configfile: Files = ()) -> Examination:
    """Ask this machine. `configfile`: of one configuration; by default all in config/."""
    from huggingface_hub import constants, get_token

    root = repository_root()
    try:
        token = get_token() is not None
    except OSError:  # no home folder in which one could be
        token = False
    machine = this_machine(Path("results"), Path(constants.HF_HUB_CACHE))
    installed, known = packages(machine.torch), environments(root)
    default = config.default_configfile()
    others = sorted(default.parent.glob("*.yaml"))
    others = [file for file in others if file.name not in (default.name, SEARCH)]
    chosen: list[Files] = [configfile] if configfile else [default, *others]
    verdicts = [judge(file, machine, installed, known, token) for file in chosen]
    return Examination(machine, installed, known, token, verdicts)


def as_json(found: Examination) -> dict[str, Any]:
    """Everything that was found, as JSON takes it."""
    machine = found.machine
    return {
        "machine": asdict(machine)
        | {
            "disks": {
                name: {"path": str(path), "free_gigabytes": free}
                for name, (path, free) in machine.disks.items()
            }
        },
        "packages": [
            asdict(entry) | {"missing": entry.missing, "different": entry.different}
            for entry in found.packages
        ],
        "environments": {entry.name: {"made": entry.made} for entry in found.environments},
        "hub_token": found.token,
        "configurations": [
            {
                "configfile": str(verdict.configfile),
                "overlays": [str(file) for file in verdict.overlays],
                "title": verdict.title,
                "ready": verdict.ready,
                "summary": verdict.summary,
                "todo": verdict.todo,
                "notes": verdict.notes,
                "fetch_gigabytes": verdict.fetch,
                "files": [asdict(file) | {"whole": file.whole} for file in verdict.files],
            }
            for verdict in found.verdicts
        ],
        "exit_code": found.exit_code,
    }


def report(found: Examination) -> RenderableType:
    """The screen."""
    return Group(
        _machine(found), _packages(found), _files(found), _verdicts(found), *_advice(found)
    )


def _machine(found: Examination) -> RenderableType:
    machine, rows = found.machine, table("Machine", "")
    rows.add_row(
        "processor",
        f"{machine.processor}, {machine.cores} cores, {gigabytes(machine.memory)} memory,"
        f" {machine.system}, Python {machine.python}",
    )
    for name, (path, free) in machine.disks.items():
        rows.add_row(name, f"{path}: {gigabytes(free)} free")
    for gpu in machine.gpus:
        rows.add_row("GPU", f"{gpu.name}, {gigabytes(gpu.gigabytes)}, driver {gpu.driver}")
    if not machine.gpus:
        rows.add_row("GPU", "none")
    rows.add_row("conda", machine.conda or "not here")
    rows.add_row(
        "environments",
        ", ".join(f"{entry.name}{' (made)' if entry.made else ''}" for entry in found.environments),
    )
    rows.add_row("hub token", "there" if found.token else "none")
    rows.add_row("Slurm", _slurm(machine))
    return rows


def _slurm(machine: Machine) -> str:
    if machine.slurm is None:
        return "not here"
    partitions = [
        f"{name} ({gpus or 'no GPUs'})" for name, gpus in machine.slurm.partitions.items()
    ]
    return machine.slurm.complaint or f"partitions: {', '.join(partitions)}"


def _packages(found: Examination) -> RenderableType:
    rows, machine = table("Package", "Pinned", "Here", ""), found.machine
    for entry in found.packages:
        wrong = entry.group == "main" and (entry.missing or entry.different)
        if entry.name not in SHOWN and entry.group != "optional" and not wrong:
            continue
        state = "missing" if entry.missing and entry.group == "main" else entry.remark
        if entry.name == "torch" and machine.torch:
            state = f"built for {machine.torch.built_for}"
        if entry.different:
            state = f"differs; {state}" if state else "differs"
        elif entry.missing and entry.group != "main":
            state = f"not here ({entry.group})"
        rows.add_row(entry.name, entry.wanted, entry.found, state)
    return rows


def _files(found: Examination) -> RenderableType:
    rows = table("Weights and prompts", "Where", "Size", "Licence", "State")
    files = {file.path: file for verdict in found.verdicts for file in verdict.files}
    for file in files.values():
        state = "found" if file.whole else "missing"
        state = "in part" if file.missing_parts else state
        gated = " (gated)" if file.gated else ""
        size = gigabytes(file.gigabytes) if file.gigabytes else ""
        rows.add_row(file.what, file.path, size, file.licence + gated, state)
    return rows


def _verdicts(found: Examination) -> RenderableType:
    rows = table("Configuration", "", "On this machine")
    for verdict in found.verdicts:
        rows.add_row(verdict.name, verdict.title, verdict.summary)
    return rows


def _advice(found: Examination) -> list[Text]:
    """What to do for the first configuration, then for the others."""
    lines = []
    for verdict in found.verdicts:
        lines += [f"{verdict.name}: {line}" for line in verdict.todo]
        lines += [f"{verdict.name}: (note) {line}" for line in verdict.notes]
    return [Text(line) for line in lines]
