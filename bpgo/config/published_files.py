"""Whether what a configuration says of other people's files can be right, before any job."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bpgo.config.published import Published
from bpgo.config.settings import MAIN, RewardSettings
from bpgo.errors import UserError, shortened, shown, suggest
from bpgo.storage import hub
from bpgo.storage.files import repository_root

SUFFIX = "_revision"  # `processor_revision` belongs to the path `processor`
WITH_THE_FIRST = ("config",)  # paths that share `revision`


def places(entry: Published) -> list[tuple[str, str, str | None]]:
    """Keys, paths and revisions: `path`, then any other that the entry's class has."""
    found = []
    for name in ("path", *WITH_THE_FIRST):
        if isinstance(path := getattr(entry, name, None), str):
            found.append((name, path, entry.revision))
    for field in type(entry).model_fields:
        name = field.removesuffix(SUFFIX)
        if name != field and isinstance(path := getattr(entry, name, None), str):
            found.append((name, path, getattr(entry, field)))
    return found


def check_places(entry: Published, file: str) -> None:
    """Every path of the settings in `file` is here, or a place on the hub at a pinned revision.

    Raises:
        UserError: naming the key, the path and what is allowed.
    """
    for key, path, revision in places(entry):
        if wrong := hub.problem(path, revision, pinned=False):
            raise UserError(f"{file}: {key}: {wrong}")


def check_environment(reward: RewardSettings, file: str) -> None:
    """The software environment that a reward needs has a file."""
    folder, environment = repository_root() / "workflow" / "envs", reward.environment
    if environment != MAIN and not (folder / f"{environment}.yaml").is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise UserError(
            f"{file}: environment: there is no {folder / environment}.yaml."
            f"{suggest(environment, known)} Known: {', '.join(known)}"
        )


def check_architecture(reward: RewardSettings, file: str) -> None:
    """Open_clip, where it is installed, has the architecture that the reward names; or a file is.

    Raises:
        UserError: naming the architecture, and the nearest one that is known.
    """
    name = getattr(reward, "architecture", None)
    if name is None:
        return
    if name.endswith(".json"):
        if hub.local_path(name) is None:
            raise UserError(f"{file}: architecture: there is no file '{shortened(name)}'")
        return
    spec = find_spec("open_clip")  # is not imported: that takes seconds
    folders = list(spec.submodule_search_locations or []) if spec else []
    known = [path.stem for each in folders for path in Path(each, "model_configs").glob("*.json")]
    if known and name not in known:
        raise UserError(
            f"{file}: architecture: open_clip knows no {shown(name)}.{suggest(name, known)} It must"
            " be one of its names or a JSON file like its own"
        )
