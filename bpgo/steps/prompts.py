"""Prompt sets: one JSON line per prompt."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bpgo.config.resolve import load_prompts
from bpgo.config.settings import RewardSettings, Settings
from bpgo.errors import UserError
from bpgo.prompts.sets import Prompt, PromptList, Split, load_prompt_set
from bpgo.records import PromptBatch
from bpgo.storage.files import atomic_path, sha256, write_text
from bpgo.storage.seals import again, read_sealed, write_sealed

SPLITS: tuple[Split, ...] = get_args(Split)
WRITTEN = "written_sha256"  # in a manifest: of the prompts beside it
ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")  # an id becomes part of a file's name


def write_prompts(
    settings: Settings,
    split: str,
    output: Path,
    rewards: Mapping[str, RewardSettings] | None = None,
) -> list[str]:
    """Write one split; splits share no prompt. Gives lines for a person to read.

    `rewards`, by name, must be able to judge samples of every prompt.

    Beside it, `output` with the suffix `.manifest.json` has its digest; of a set from files it says
    where each file is from, its digest, its licence, and how many of its rows were left out and
    why.

    Raises:
        UserError: for an unknown split, more prompts than there are, a file that cannot be had or
            read, or a prompt whose samples a reward cannot score.
    """
    if split not in SPLITS:
        raise UserError(f"--split: '{split}' is unknown. Allowed: {', '.join(SPLITS)}")
    made = load_prompt_set(settings.prompts).split(split)
    _check_texts(rewards or {}, made.prompts)
    entries = [_entry(prompt, Path(output).parent) for prompt in made.prompts]
    write_text(output, "".join(json.dumps(entry) + "\n" for entry in entries))
    write_sealed(_manifest(output), {**made.manifest, WRITTEN: sha256(output)})
    return describe(made)


def _check_texts(rewards: Mapping[str, RewardSettings], prompts: Sequence[Prompt]) -> None:
    """Every reward can score samples of every prompt: said here, and not after training."""
    for name, reward in rewards.items():
        for prompt in prompts:
            try:
                reward.check_text(prompt.text)
            except UserError as error:
                raise UserError(
                    f"prompts: the reward '{name}' cannot judge prompt '{prompt.id}': {error}; take"
                    " other prompts, or leave the reward out"
                ) from None


def _manifest(prompts: Path) -> Path:
    return Path(prompts).with_suffix(".manifest.json")


def _entry(prompt: Prompt, folder: Path) -> dict[str, Any]:
    """A prompt as its line; its first frame is kept in `folder`/first_frames, by digest."""
    entry = {"id": prompt.id, "text": prompt.text, "ambiguity": prompt.ambiguity}
    given = prompt.first_frame
    if given is None:
        return entry
    if isinstance(given, bytes):
        content, suffix = given, ".png"
    else:
        try:
            content, suffix = given.read_bytes(), given.suffix
        except OSError as error:
            raise UserError(
                f"{given}: the first frame of prompt '{prompt.id}' cannot be read: {error}"
            ) from None
    kept = folder / "first_frames" / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix.lower()}"
    if not kept.exists():
        with atomic_path(kept) as part:
            part.write_bytes(content)
    return {**entry, "first_frame": kept.relative_to(folder).as_posix()}


def describe(made: PromptList) -> list[str]:
    """One line for each file of a prompt list: licence, digest, and what was left out."""
    lines = []
    for note in made.manifest.get("files", {}).values():
        unseen = "" if note["sha256_expected"] else " (none was known to check it by)"
        left_out = {
            **note["dropped"],
            "taken by evaluation": note["in_evaluation"],
            "in an earlier file": note["in_an_earlier_file"],
        }
        counts = [f"{count} {fault}" for fault, count in left_out.items() if count]
        lines.append(
            f"{made.manifest['split']}: {note['rows']} rows of {note['path']}, licence"
            f" {note['licence'] or 'not stated'}, SHA-256 {note['sha256']}{unseen}; left out:"
            f" {', '.join(counts) or 'none'}"
        )
    return lines


def fetch(name: str, folder: Path) -> Iterator[str]:
    """Fetch, check and read the prompt set `folder`/prompts/`name`.yaml, or `all` of them.

    Gives lines for a person to read while it goes on.

    Raises:
        UserError: for an unknown name; for sets that failed, after all were tried.
    """
    names = [name]
    if name == "all":
        names = sorted(file.stem for file in (Path(folder) / "prompts").glob("*.yaml"))
    failures = []
    for chosen in names:
        try:
            settings = load_prompts(chosen, folder)
            prompts = load_prompt_set(settings)
            lists = [prompts.split("train"), prompts.split("evaluation")]
        except UserError as error:
            failures.append(f"{chosen}: {error}" if name == "all" else str(error))
            continue
        yield f"{chosen}: {settings.train} training and {settings.evaluation} evaluation prompts"
        yield from (f"  {line}" for made in lists for line in describe(made))
    if failures:
        raise UserError("\n".join(failures))


def read_prompts(path: Path, needed: int = 1) -> PromptBatch:
    """Read a prompt set of at least `needed` prompts; `ambiguity` may be missing (NaN).

    Raises:
        UserError: naming the file and line of what is missing, empty, malformed or given twice; the
            file is not what `write_prompts` wrote, if its manifest lies beside it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: there are no prompts") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as prompts: {error}") from None
    found: dict[str, tuple[str, float, Path | None]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            identifier, text, ambiguity, frame = _prompt(json.loads(line), Path(path).parent)
        except ValueError as error:
            reason = "is not JSON" if isinstance(error, json.JSONDecodeError) else error
            raise UserError(f"{path}, line {number}: {reason}") from None
        if identifier in found:
            raise UserError(f"{path}, line {number}: id '{identifier}' is given twice")
        found[identifier] = text, ambiguity, frame
    _check_unchanged(path)
    if len(found) < needed:
        raise UserError(f"{path}: holds {len(found)} prompts, but {needed} are needed")
    texts, ambiguities, frames = (list(column) for column in zip(*found.values(), strict=True))
    if None not in frames:
        return PromptBatch(list(found), texts, ambiguities, frames)
    if any(frames):
        missing = list(found)[frames.index(None)]
        raise UserError(f"{path}: prompt '{missing}' has no 'first_frame', but others have")
    return PromptBatch(list(found), texts, ambiguities)


def _check_unchanged(path: Path) -> None:
    manifest = _manifest(path)
    if not manifest.is_file():  # prompts of the user's own
        return
    written = read_sealed(manifest, again("prompts"), may={WRITTEN: str}).get(WRITTEN)
    if written is not None and sha256(path) != written:
        raise UserError(
            f"{path}: was changed after it was written (by its digest in {manifest.name});"
            f" {again('prompts')}"
        )


def _prompt(entry: Any, folder: Path) -> tuple[str, str, float, Path | None]:
    """Id, text, ambiguity and first frame of one line; `ValueError` says what is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or "id" not in entry:
        raise ValueError("needs a JSON object with 'id' and 'text'")
    identifier, text, ambiguity = entry["id"], entry["text"].strip(), entry.get("ambiguity")
    if not isinstance(identifier, str) or not ID.fullmatch(identifier):
        raise ValueError(f"id {identifier!r} may hold only letters, digits, '_', '-' and '.'")
    if not text:
        raise ValueError("'text' is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"'text' holds half a character: {text[:80]!a}")
    frame = _first_frame(entry.get("first_frame"), folder)
    if ambiguity is None:
        return identifier, text, math.nan, frame
    if isinstance(ambiguity, bool) or not isinstance(ambiguity, (int, float)):
        raise ValueError(f"ambiguity {ambiguity!r} is not a number")
    return identifier, text, float(ambiguity), frame


def _first_frame(value: Any, folder: Path) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ValueError(f"first_frame {value!r} is not the path of an image")
    if not (folder / value).is_file():
        raise ValueError(f"there is no first frame {folder / value}")
    return folder / value
