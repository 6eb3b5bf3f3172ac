"""Whether this machine can run a configuration, and if not, what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bpgo.config import resolve as config
from bpgo.config.overlays import Files, files_of
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.run.machine import Machine
from bpgo.tools.doctor.prompts import cut_notes
from bpgo.tools.doctor.published import PublishedFile, published_files
from bpgo.tools.doctor.software import Environment, Package
from bpgo.tools.planning.cost import disk_of
from bpgo.tools.planning.model import USABLE, Memory, ModelSize, host_gigabytes, memory, model_size
from bpgo.tools.planning.run import devices_of_a_run, needs_gpu
from bpgo.tools.planning.work import work_of
from bpgo.tools.screen import gigabytes

EMBEDDED = "scenes"  # kinds of reward that begin so need no package beyond the main ones


@dataclass
class Verdict:
    """What is said of one configuration."""

    configfile: Path
    overlays: list[Path] = field(default_factory=list)  # laid over it
    title: str = ""
    files: list[PublishedFile] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)  # cannot be had by fetching alone
    todo: list[str] = field(default_factory=list)  # what to do, most important first
    notes: list[str] = field(default_factory=list)  # in order, but good to know
    fetch: float = 0.0  # gigabytes

    @property
    def name(self) -> str:
        """The names of its files."""
        return " ".join(file.name for file in (self.configfile, *self.overlays))

    @property
    def ready(self) -> bool:
        """Whether everything it needs is here."""
        return not self.todo

    @property
    def summary(self) -> str:
        """In one line."""
        if self.blocked:
            return "; ".join(self.blocked)
        missing = [file for file in self.files if not file.whole]
        if not missing:
            return "can run" if self.ready else "can run after what is said below"
        return f"can run after fetching {gigabytes(self.fetch) if self.fetch else 'files'}"


def judge(
    configfile: Files,
    machine: Machine,
    packages: list[Package],
    environments: list[Environment],
    token: bool,
) -> Verdict:
    """Judge one configuration.

    Args:
        configfile: as `resolve` takes it.
        machine: from `bpgo.run.machine.this_machine`.
        packages: from `bpgo.tools.doctor.software.packages`.
        environments: from `bpgo.tools.doctor.software.environments`.
        token: whether there is an access token of the hub.
    """
    first, *overlays = files_of(configfile)
    found = Verdict(Path(first), overlays)
    try:
        settings = config.load(configfile)
    except UserError as error:
        found.blocked.append("its settings are wrong")
        found.todo += str(error).splitlines()
        return found
    found.title, found.files = settings.title, published_files(settings)
    _packages(found, settings, packages)
    _environments(found, settings, machine, environments)
    _files(found, machine, token)
    here = all(file.whole for file in found.files if file.what.startswith("prompts "))
    found.notes += cut_notes(settings, here)
    try:
        size = model_size(settings)
    except UserError as error:
        found.notes.append(str(error))
        return found
    _hardware(found, settings, size, machine)
    return found


def _packages(found: Verdict, settings: Settings, packages: list[Package]) -> None:
    groups = {"main"}
    for name in settings.models_of(settings.rewards):
        reward = settings.rewards[name]
        if not reward.kind.startswith(EMBEDDED) and reward.environment == "main":
            groups.add("rewards")
    if settings.training.optimizer == "adamw_8bit":
        groups.add("optional")
    missing = [package for package in packages if package.group in groups and package.missing]
    if missing:
        names = ", ".join(package.name for package in missing)
        extra = "[rewards]" if "rewards" in groups else ""
        others = " bitsandbytes" if "optional" in groups else ""
        found.blocked.append(f"needs packages: {names}")
        found.todo.append(
            f"packages are missing: pip install -c constraints.txt -e '.{extra}'{others}"
        )
    different = [package for package in packages if package.group in groups and package.different]
    if different:
        found.notes.append(
            "other versions than the pinned ones, which gives other numbers: "
            + ", ".join(f"{entry.name} {entry.found}" for entry in different)
        )


def _environments(
    found: Verdict, settings: Settings, machine: Machine, environments: list[Environment]
) -> None:
    known = {entry.name: entry for entry in environments}
    names = {reward.environment for reward in settings.rewards.values()} - {"main"}
    for name in sorted(names):
        rewards = ", ".join(
            key for key, reward in settings.rewards.items() if reward.environment == name
        )
        if name not in known:
            found.blocked.append(f"needs the environment '{name}'")
            found.todo.append(f"workflow/envs/{name}.yaml is missing; {rewards} needs it")
        elif known[name].here:
            found.notes.append(
                f"{rewards}: the packages of environment '{name}' are installed here"
            )
        elif known[name].made:
            found.notes.append(f"{rewards}: environment '{name}' is there (--use-conda)")
        elif machine.conda is None:
            found.blocked.append(f"needs conda for {rewards}")
            found.todo.append(
                f"{rewards} runs in the environment '{name}' (workflow/envs/{name}.yaml): install"
                " conda and give Snakemake --use-conda"
            )
        else:
            found.notes.append(
                f"{rewards}: --use-conda makes the environment '{name}' at its first use"
            )


def _files(found: Verdict, machine: Machine, token: bool) -> None:
    missing = [file for file in found.files if not file.whole]
    found.fetch = sum(file.gigabytes for file in missing)
    for file in missing:
        if file.missing_parts:
            found.todo.append(
                f"{file.what}: {file.found} is there in part; missing: "
                + ", ".join(file.missing_parts[:4])
            )
    if missing:
        size = f", {gigabytes(found.fetch)}" if found.fetch else ""
        several = "1 file or folder is" if len(missing) == 1 else f"{len(missing)} are"
        found.todo.append(
            f"of the weights and prompts above {several} not here{size}: the first job that needs"
            " one fetches it. Where jobs have no network, fetch before (`hf download`, `python -m"
            " bpgo fetch-prompts`), or name local paths under `overrides`"
        )
    gated = [file.what for file in missing if file.gated]
    if gated and not token:
        found.todo.append(
            f"{', '.join(gated)}: accept the licence on its page at the hub, then give a token by"
            " `hf auth login` or HF_TOKEN"
        )
    place, free = machine.disks["hub cache"]
    if found.fetch > free:
        found.blocked.append(f"needs {gigabytes(found.fetch)} free for files to fetch")
        found.todo.append(f"{place} has {gigabytes(free)} free: make room, or set HF_HOME")


def _hardware(found: Verdict, settings: Settings, size: ModelSize, machine: Machine) -> None:
    need, count = memory(settings, size), devices_of_a_run(settings)
    if needs_gpu(settings, size, machine.cores):
        _gpus(found, need, count, machine)
    host = host_gigabytes(settings, size)
    if host > machine.memory:
        found.blocked.append(f"needs {gigabytes(host)} of memory beside the GPU's")
        found.todo.append(
            f"this machine has {gigabytes(machine.memory)} of memory; a job holds the text"
            " embeddings of all training prompts (prompts.train) and, while it loads, the weights"
        )
    if machine.gpus and machine.torch and not machine.torch.sees_gpus:
        found.todo.append(
            f"torch {machine.torch.version} is built for the CPU and does not see the GPU: install"
            " torch for your driver (pytorch.org)"
        )
    disk = disk_of(settings, work_of(settings), size, max(1, len(machine.gpus) or machine.cores))
    place, free = machine.disks["results"]
    if disk.total > free:
        found.blocked.append(f"needs {gigabytes(disk.total)} free for results")
        found.todo.append(
            f"{place} has {gigabytes(free)} free: make room, or let it lead to a larger disk"
        )


def _gpus(found: Verdict, need: Memory, count: int, machine: Machine) -> None:
    wanted = need.least / USABLE
    many = f"{count} GPUs" if count > 1 else "a GPU"
    there = [gpu for gpu in machine.gpus if gpu.gigabytes >= wanted]
    if len(there) >= count:
        batch = need.batch_that_fits(min(gpu.gigabytes for gpu in there))
        found.notes.append(f"its GPU takes about {batch} samples in one forward pass")
        return
    found.blocked.append(f"needs {many} with {gigabytes(wanted)}")
    names = ", ".join(f"{gpu.name} ({gigabytes(gpu.gigabytes)})" for gpu in machine.gpus)
    cluster = machine.slurm and any(machine.slurm.partitions.values())
    elsewhere = " (the cluster has GPUs: --workflow-profile profiles/slurm)" if cluster else ""
    found.todo.append(
        f"training needs {many} with {gigabytes(wanted)} of memory; here:"
        f" {names or 'none'}{elsewhere}. `python -m bpgo plan` says what takes it"
    )
