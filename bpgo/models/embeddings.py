"""Prompt embeddings, made once per prompt set and kept in safetensors."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bpgo.interfaces import Policy, PromptEmbeddings
from bpgo.records import PromptBatch
from bpgo.storage.files import atomic_path, sha256, text_digest, write_text
from bpgo.storage.hub import COMMIT

HOST = torch.device("cpu")
DIGEST = ".sha256"  # of an entry, beside it
SMALL = 2**24  # bytes: such a file is read again for its digest, which takes 10 ms


def prompt_embeddings(policy: Policy, prompts: PromptBatch, cache: Path) -> PromptEmbeddings:
    """Embeddings `[N, ...]` of the prompts, from `cache` where an earlier job made them.

    Thousands of prompts take gigabytes: they stay in the file on the host, mapped, and are read as
    they are used. The key is the texts, the text encoders and tokenizers (see `encoder_key`), the
    padded length and the dtype, with first frames also these and the size of a sample; so a changed
    prompt set or another model never meets a stale entry. An entry that is damaged, or another's
    by its digest, is made again. Where
    all is cached, no encoder is loaded; of several processes that start at once, one makes the
    entry and the others wait for it.
    """
    settings = policy.settings
    form = [settings.prompt_tokens, settings.dtype, settings.negative_prompt]
    with_images = prompts.first_frames is not None
    parts: list[Any] = [prompts.texts, encoder_key(policy.folder, cache, with_images), form]
    if prompts.first_frames is not None:
        made_by = [list(policy.latent_shape), settings.vae_dtype, settings.tile_vae]
        parts += [[sha256(file) for file in prompts.first_frames], made_by]
    path = Path(cache) / f"{text_digest(json.dumps(parts))}.safetensors"
    found = _read(path, policy)
    if found is None:
        with _one_process(Path(cache)):
            found = _read(path, policy)  # another process may have been first
            if found is None:
                _write(path, policy.encode_prompts(prompts.texts, prompts.first_frames))
                found = _read(path, policy)
    assert found is not None
    return found


@contextmanager
def _one_process(cache: Path) -> Iterator[None]:
    """One process at a time loads text encoders; the operating system lets go when it ends.

    On a file system without locks several may: each writes the same entry, whole.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, embeddings: PromptEmbeddings) -> None:
    state = {
        name: value.contiguous() for name, value in vars(embeddings).items() if value is not None
    }
    path.with_suffix(DIGEST).unlink(missing_ok=True)  # never an entry with another one's digest
    with atomic_path(path) as temporary:
        save_file(state, temporary)
    write_text(path.with_suffix(DIGEST), sha256(path))


def _read(path: Path, policy: Policy) -> PromptEmbeddings | None:
    """None where there is no entry, or one that is not as it was written."""
    try:
        if path.with_suffix(DIGEST).read_text(encoding="utf-8") != _digest(path, path.parent):
            return None
        return PromptEmbeddings(**load_file(path)).to(HOST, policy.dtype)
    except (FileNotFoundError, SafetensorError, TypeError):
        return None


def encoder_key(folder: Path, cache: Path, images: bool = False) -> str:
    """What says which text encoders and tokenizers a pipeline folder has.

    A folder of the hub's cache is named by its commit: that is the key. Of any other folder, the
    digests of the encoders' and tokenizers' files; with `images` also of the codec's and the image
    encoder's, through which first frames go. Hashing gigabytes at each start of a job is too
    slow, so the digest of a large file is kept in `cache`, by place, size and time of change.
    """
    if COMMIT.fullmatch(folder.name) and folder.parent.name == "snapshots":
        return f"{folder.parent.parent.name}@{folder.name}"
    files = [*folder.glob("text_encoder*/*"), *folder.glob("tokenizer*/*")]
    if images:
        files += [*folder.glob("vae/*"), *folder.glob("image_*/*")]
    files.append(folder / "model_index.json")  # says which encoders are absent
    digests = [
        [file.relative_to(folder).as_posix(), _digest(file, Path(cache))]
        for file in sorted(files)
        if file.is_file()
    ]
    return text_digest(json.dumps(digests))


def _digest(file: Path, cache: Path) -> str:
    status = file.stat()
    if status.st_size <= SMALL:
        return sha256(file)
    place = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    kept = cache / "digests" / f"{text_digest(place)}.txt"
    if not kept.is_file():
        write_text(kept, sha256(file))
    return kept.read_text(encoding="utf-8")
