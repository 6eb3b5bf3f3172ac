"""Prompts from files: a user's own, or lists that others publish, at a pinned revision."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from bpgo.config.fields import SHA256, Column, Name
from bpgo.config.published import Published
from bpgo.config.settings import PromptSettings
from bpgo.errors import UserError
from bpgo.prompts.formats import Format, Row, format_of, read_rows
from bpgo.prompts.sets import Prompt, PromptList, Split
from bpgo.seeding import derive_seed
from bpgo.storage import github, hub
from bpgo.storage.files import sha256, text_digest

MAX_CHARACTERS = 2000  # a longer line is no prompt: 512 tokens of T5 are about 2000 characters


class PromptFileSettings(Published):
    """One file of prompts. Without a `revision` it is a user's own, and is read strictly."""

    path: str  # a local file, else owner/name/path/of/the/file on `host`
    host: Literal["hub", "github"] = "hub"  # where a path that is not local leads
    split: Literal["both", "train", "evaluation"] = "both"  # which it serves
    # Of the file, which is refused with another one.
    sha256: Annotated[str, Field(pattern=SHA256)] | None = None
    format: Format | None = None  # None: as the file's name ends
    column: Column = "prompt"  # name of the field with the text
    ambiguity_column: Column | None = None  # of a field from 0 (specified) to 1 (open)
    # Image to video: a field with the path of an image, from the file's own folder or absolute.
    first_frame_column: Column | None = None
    # Digest of the first frames; `resolve` reads it.
    images: str | None = Field(default=None, exclude_if=lambda each: each is None)

    def locate(self, what: str) -> Path:
        """The file on this machine, fetched if need be, its digest checked (`UserError`)."""
        if self.host == "github":
            return github.file(self.path, self.revision, what, self.sha256)
        return hub.file(self.path, self.revision, what, self.sha256, "dataset")

    def problem(self) -> str | None:
        """Why the path of a published file leads nowhere, whatever its host has."""
        module = github if self.host == "github" else hub
        return module.problem(self.path, self.revision)

    def present(self) -> Path | None:
        """Where the file lies on this machine, or None; never asks the network."""
        if self.host == "github":
            return github.present(self.path, self.revision)
        return hub.present(self.path, self.revision, "dataset")


class FilePromptSettings(PromptSettings):
    """Keys of a `file` prompt set."""

    kind: Literal["file"]
    order: Literal["shuffled", "file"] = "shuffled"  # in which prompts are taken
    # By name, with which their ids begin.
    files: Annotated[dict[Name, PromptFileSettings], Field(min_length=1)]

    @property
    def has_first_frames(self) -> bool:
        """Whether every file names images."""
        return all(entry.first_frame_column is not None for entry in self.files.values())

    @property
    def knows_ambiguity(self) -> bool:
        """Whether every file has a column with it."""
        return all(entry.ambiguity_column is not None for entry in self.files.values())

    def pinned(self, file: str) -> Self:
        """See `PromptSettings.pinned`; a user's own files are read through, so mistakes show."""
        files = {}
        for name, entry in self.files.items():
            local = hub.local_path(entry.path)
            nowhere = entry.revision is None or entry.path.startswith(("/", "~", "."))
            if local is None and nowhere:
                raise UserError(
                    f"{file}: files.{name}.path: there is no file '{entry.path}' (paths are"
                    " absolute, or relative to the clone's root); a published file needs a"
                    " revision too"
                )
            if local is None and (wrong := entry.problem()):
                raise UserError(f"{file}: files.{name}.path: {wrong}")
            if entry.first_frame_column is not None and local is None:
                raise UserError(
                    f"{file}: files.{name}.first_frame_column: images are read from this machine"
                    f" only: give a local `path` instead of '{entry.path}'"
                )
            if entry.format is None:
                try:
                    format_of(entry.path)
                except UserError as error:
                    raise UserError(f"{file}: files.{name}.{error}") from None
            if local is not None and local.is_file() and entry.sha256 is None:
                entry = entry.model_copy(update={"sha256": sha256(local)})
            files[name] = entry
        settings = self.model_copy(update={"files": files})
        prompts = FilePrompts(settings, file)
        own = [name for name, entry in files.items() if entry.revision is None]
        for name in own:
            try:
                prompts.read(name)
            except UserError as error:
                raise UserError(f"{file}: files.{name}: {error}") from None
        if len(own) == len(files):
            prompts.split("train")
        for name, entry in files.items():
            if entry.first_frame_column is not None:
                digests = [sha256(path) for path in prompts.first_frames(name)]
                files[name] = entry.model_copy(update={"images": text_digest("\n".join(digests))})
        return self.model_copy(update={"files": files})

    def check_frames(self, size: tuple[int, int]) -> None:
        """See `PromptSettings.check_frames`."""
        prompts = FilePrompts(self)
        named = [name for name, entry in self.files.items() if entry.first_frame_column is not None]
        frames = [path for name in named for path in prompts.first_frames(name)]
        if frames:
            from bpgo.storage.images import read_fitting  # Pillow; most sets have no images
        for path in frames:
            read_fitting(path, size)


class FilePrompts:
    """Prompts of the files that serve a split, in a seeded order, evaluation first.

    Training takes no text that evaluation took. So one file may serve both: evaluation takes the
    first prompts, training the next ones.
    """

    Settings = FilePromptSettings

    def __init__(self, settings: FilePromptSettings, file: str = "") -> None:
        self.settings = settings
        self.place = f"{file}: " if file else "prompts."  # before a key, in messages
        self._read: dict[str, tuple[list[Prompt], dict[str, Any]]] = {}

    def split(self, name: Split) -> PromptList:
        """See `bpgo.prompts.sets.PromptSet`."""
        if name == "evaluation":
            return self._evaluation
        return self._take("train", {seen(prompt.text) for prompt in self._evaluation.prompts})

    @cached_property
    def _evaluation(self) -> PromptList:
        return self._take("evaluation", set())

    def _take(self, split: Split, taken: set[str]) -> PromptList:
        """The first prompts that are not in `taken` (`seen`); a text in two files counts once."""
        found: dict[str, Prompt] = {}
        notes = {}
        for name, entry in self.settings.files.items():
            if entry.split not in ("both", split):
                continue
            prompts, note = self.read(name)
            others = [prompt for prompt in prompts if seen(prompt.text) not in taken]
            new = {seen(prompt.text): prompt for prompt in others if seen(prompt.text) not in found}
            notes[name] = {
                **note,
                "in_evaluation": len(prompts) - len(others),
                "in_an_earlier_file": len(others) - len(new),
            }
            found |= new
        chosen = self._order(list(found.values()))[: getattr(self.settings, split)]
        self._check_count(split, len(chosen), notes)
        manifest = {"split": split, "seed": self.settings.seed, "order": self.settings.order}
        return PromptList(chosen, {**manifest, "prompts": len(chosen), "files": notes})

    def _order(self, prompts: list[Prompt]) -> list[Prompt]:
        if self.settings.order == "file":
            return prompts
        # A prompt's place follows from its own text: another prompt more or less moves none.
        seed = self.settings.seed
        return sorted(prompts, key=lambda prompt: derive_seed(seed, "prompt order", prompt.text))

    def _check_count(self, split: Split, count: int, notes: dict[str, dict[str, Any]]) -> None:
        wanted = getattr(self.settings, split)
        if not notes:
            raise UserError(f"{self.place}files: none of them serves the split '{split}'")
        if count < wanted:
            rest = " that evaluation does not take" if split == "train" else ""
            raise UserError(
                f"{self.place}{split}: {wanted} prompts are wanted, but {', '.join(notes)} hold"
                f" {count} different ones{rest}: lower `{split}` or add prompts"
            )

    def read(self, name: str) -> tuple[list[Prompt], dict[str, Any]]:
        """The usable prompts of one file, and what is to be said of it; see `split` for errors."""
        if name not in self._read:
            entry = self.settings.files[name]
            path = entry.locate(f"prompt file '{name}'")
            form = entry.format or format_of(entry.path)
            rows = read_rows(
                path, form, entry.column, entry.ambiguity_column, entry.first_frame_column
            )
            prompts, dropped = _usable(name, rows, path, strict=entry.revision is None)
            note = entry.model_dump(mode="json", include={"path", "host", "revision", "licence"})
            note |= {"sha256": entry.sha256 or sha256(path), "sha256_expected": entry.sha256}
            self._read[name] = prompts, {**note, "rows": len(rows), "dropped": dict(dropped)}
        return self._read[name]

    def first_frames(self, name: str) -> list[Path]:
        """The images that the prompts of one file name, each once."""
        prompts, _ = self.read(name)
        found = [prompt.first_frame for prompt in prompts]
        return list(dict.fromkeys(path for path in found if isinstance(path, Path)))


def seen(text: str) -> str:
    """What a reader sees of a text: texts that are alike in it are one prompt.

    Composed characters (Unicode NFC), without format characters such as a zero-width space.
    """
    shown = (letter for letter in text if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFC", "".join(shown)).split())


def _usable(
    name: str, rows: list[Row], path: Path, strict: bool
) -> tuple[list[Prompt], Counter[str]]:
    """Prompts with ids by their place in the file, and how many rows of which fault were dropped.

    If `strict`, the first fault is a `UserError` that names `path`; so is a missing image always.
    """
    prompts: dict[str, Prompt] = {}
    dropped: Counter[str] = Counter()
    for row in rows:
        text = " ".join(row.text.split())
        key = seen(text)
        if key in prompts:
            fault = "duplicate"
        elif not key:
            fault = "empty"
        elif len(text) > MAX_CHARACTERS:
            fault = "too_long"
        else:
            frame = None if row.first_frame is None else path.parent / row.first_frame
            if frame is not None and not frame.is_file():
                raise UserError(f"{path}, {row.unit} {row.number}: there is no first frame {frame}")
            prompts[key] = Prompt(f"{name}-{row.number:05d}", text, row.ambiguity, frame)
            continue
        if strict:
            reason = _reason(fault, text, prompts)
            raise UserError(f"{path}, {row.unit} {row.number}: {reason}")
        dropped[fault] += 1
    return list(prompts.values()), dropped


def _reason(fault: str, text: str, prompts: dict[str, Prompt]) -> str:
    """What a person should know of a fault."""
    if fault == "empty":
        return "is empty; remove it"
    if fault == "too_long":
        return f"has {len(text)} characters; a prompt has at most {MAX_CHARACTERS}"
    first = int(prompts[seen(text)].id.rpartition("-")[2])
    return f"'{_short(text)}' is given twice, first in {first}; remove one"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


PROMPTS = FilePrompts
