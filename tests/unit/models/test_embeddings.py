"""The cache of prompt embeddings: made once, made again when it must be."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import CAPTIONS, model_settings, tiny_policy
from wan_cases import I2V, T2V, WanFolders

from bpgo.interfaces import PromptEmbeddings
from bpgo.models import embeddings, parts
from bpgo.models.embeddings import encoder_key, prompt_embeddings
from bpgo.models.flux import FluxPolicy
from bpgo.models.stable_diffusion_3 import StableDiffusion3Policy
from bpgo.records import PromptBatch
from bpgo.storage.files import sha256


class Counting(FluxPolicy):
    """Counts how often the text encoders run."""

    runs = 0

    def encode_prompts(
        self, texts: list[str], first_frames: list[Path] | None = None
    ) -> PromptEmbeddings:
        self.runs += 1
        return super().encode_prompts(texts, first_frames)


def batch(texts: list[str]) -> PromptBatch:
    return PromptBatch([f"p{row}" for row in range(len(texts))], texts, [0.0] * len(texts))


@pytest.fixture
def policy(tiny_folder: Path) -> Counting:
    return Counting(tiny_policy(tiny_folder).settings)


def assert_equal(first: PromptEmbeddings, second: PromptEmbeddings) -> None:
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.pooled, second.pooled)
    assert first.tokens.dtype == second.tokens.dtype


def test_second_time_from_the_cache(policy: Counting, tmp_path: Path) -> None:
    first = prompt_embeddings(policy, batch(CAPTIONS), tmp_path)
    second = prompt_embeddings(policy, batch(CAPTIONS), tmp_path)
    assert policy.runs == 1
    assert_equal(first, second)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == ["", ".safetensors", ".sha256"]


def test_other_texts_order_or_length_are_other_entries(policy: Counting, tmp_path: Path) -> None:
    prompt_embeddings(policy, batch(CAPTIONS), tmp_path)
    turned = prompt_embeddings(policy, batch(CAPTIONS[::-1]), tmp_path)
    assert policy.runs == 2
    assert_equal(turned, policy.encode_prompts(CAPTIONS[::-1]))
    shorter = Counting(policy.settings.model_copy(update={"prompt_tokens": 8}))
    assert prompt_embeddings(shorter, batch(CAPTIONS), tmp_path).tokens.shape[1] == 8
    assert shorter.runs == 1


def test_other_text_encoders_are_other_entries(
    policy: Counting, tiny_folder: Path, tmp_path: Path
) -> None:
    first = prompt_embeddings(policy, batch(CAPTIONS), tmp_path / "cache")
    folder = shutil.copytree(tiny_folder, tmp_path / "policy")
    from safetensors.torch import load_file, save_file

    file = folder / "text_encoder" / "model.safetensors"
    save_file({k: 2 * v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    other = Counting(tiny_policy(folder).settings)
    second = prompt_embeddings(other, batch(CAPTIONS), tmp_path / "cache")
    assert other.runs == 1
    assert not torch.equal(first.pooled, second.pooled)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_an_unreadable_entry_is_made_again(
    content: bytes | None, policy: Counting, tmp_path: Path
) -> None:
    first = prompt_embeddings(policy, batch(CAPTIONS), tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    part = file.read_bytes()[:500] if content is None else content
    file.unlink()  # `first` is mapped to it
    file.write_bytes(part)
    second = prompt_embeddings(policy, batch(CAPTIONS), tmp_path)
    assert policy.runs == 2
    assert_equal(first, second)
    assert_equal(prompt_embeddings(policy, batch(CAPTIONS), tmp_path), first)
    assert policy.runs == 2


@pytest.mark.parametrize("damage", ["another's", "one bit"])
def test_an_entry_that_is_not_as_written_is_made_again(
    damage: str, policy: Counting, tmp_path: Path
) -> None:
    """Both can be read, and would be sampled from without a word."""
    first = prompt_embeddings(policy, batch(CAPTIONS), tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "one bit":
        content[-7] ^= 1
    else:
        prompt_embeddings(policy, batch(CAPTIONS[::-1]), tmp_path)
        (other,) = set(tmp_path.glob("*.safetensors")) - {file}
        content = bytearray(other.read_bytes())
    file.unlink()  # `first` is mapped to it
    file.write_bytes(content)
    runs = policy.runs
    assert_equal(prompt_embeddings(policy, batch(CAPTIONS), tmp_path), first)
    assert policy.runs == runs + 1


def test_an_entry_of_another_form_is_made_again(policy: Counting, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    first = prompt_embeddings(policy, batch(CAPTIONS), tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.unlink()
    save_file({"other": torch.zeros(1)}, file)
    assert_equal(prompt_embeddings(policy, batch(CAPTIONS), tmp_path), first)


def test_dtype_of_the_policy(tiny_folder: Path, tmp_path: Path) -> None:
    policy = Counting(tiny_policy(tiny_folder, dtype="bfloat16").settings)
    first, second = (prompt_embeddings(policy, batch(CAPTIONS), tmp_path) for _ in range(2))
    assert_equal(first, second)
    assert second.tokens.dtype == torch.bfloat16


def test_the_empty_prompts_embeddings_are_kept(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    settings = model_settings(tiny_sd3_folder, kind="stable_diffusion_3")
    first, second = (
        prompt_embeddings(StableDiffusion3Policy(settings), batch(CAPTIONS), tmp_path)
        for _ in range(2)
    )
    assert_equal(first, second)
    for name in ("negative_tokens", "negative_pooled"):
        kept = getattr(second, name)
        assert torch.equal(kept, getattr(first, name))
        assert len(kept) == 1
        assert torch.equal(getattr(second.select(torch.tensor([3, 3])), name), kept)


def test_a_hub_folder_is_named_by_its_commit(tiny_folder: Path, tmp_path: Path) -> None:
    commits = ["a" * 40, "b" * 40]
    folders = [tmp_path / "models--owner--name" / "snapshots" / commit for commit in commits]
    keys = set()
    for folder in folders:
        shutil.copytree(tiny_folder, folder)
        keys.add(encoder_key(folder, tmp_path))
        shutil.rmtree(folder / "text_encoder")  # nothing of it is read
        keys.add(encoder_key(folder, tmp_path))
    assert keys == {f"models--owner--name@{commit}" for commit in commits}


def test_every_file_of_an_encoder_counts(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "policy"))
    keys = [encoder_key(folder, tmp_path)]
    for file in ("text_encoder_2/config.json", "tokenizer/tokenizer.json", "model_index.json"):
        (folder / file).write_text((folder / file).read_text() + "\n")
        keys.append(encoder_key(folder, tmp_path))
    assert len(set(keys)) == 4
    (folder / "transformer" / "config.json").write_text("{}")
    assert encoder_key(folder, tmp_path) == keys[-1]


def test_a_large_file_is_hashed_once(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr(embeddings, "sha256", counted)
    monkeypatch.setattr(embeddings, "SMALL", 5000)
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "policy"))
    first = encoder_key(folder, tmp_path)
    large = [file for file in hashed if file.stat().st_size > 5000]
    assert [file.name for file in large] == ["model.safetensors"] * 2
    hashed.clear()
    assert encoder_key(folder, tmp_path) == first
    assert not set(large) & set(hashed)
    content = bytearray(large[0].read_bytes())
    content[-1] ^= 1
    large[0].write_bytes(content)
    os.utime(large[0], (1, 1))  # whatever the clock's resolution
    assert encoder_key(folder, tmp_path) != first


def test_of_two_at_once_one_encodes(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, both_asked = [], threading.Event()
    lock = embeddings.fcntl.flock

    def counted(file: Any, operation: int) -> None:
        asked.append(operation)
        if len(asked) == 2:
            both_asked.set()
        lock(file, operation)

    class Slow(Counting):
        def encode_prompts(
            self, texts: list[str], first_frames: list[Path] | None = None
        ) -> PromptEmbeddings:
            assert both_asked.wait(60)  # the other one stands at the lock
            return super().encode_prompts(texts, first_frames)

    monkeypatch.setattr(embeddings.fcntl, "flock", counted)
    policies = [Slow(tiny_policy(tiny_folder).settings) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        results = [
            pool.submit(prompt_embeddings, policy, batch(CAPTIONS), tmp_path) for policy in policies
        ]
        assert_equal(*(result.result() for result in results))
    assert sum(policy.runs for policy in policies) == 1


def test_a_file_system_without_locks_has_entries_too(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lustre, some NFS: who comes second makes the same entry again."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    policy = tiny_policy(tiny_folder)
    wanted = prompt_embeddings(policy, batch(CAPTIONS), tmp_path / "with")
    monkeypatch.setattr(embeddings.fcntl, "flock", refuse)
    assert_equal(prompt_embeddings(policy, batch(CAPTIONS), tmp_path / "without"), wanted)


@pytest.mark.parametrize("kind", ["flux", "stable_diffusion_3", "wan t2v", "wan i2v"])
def test_where_all_is_cached_no_encoder_is_loaded(
    kind: str,
    tiny_folder: Path,
    tiny_sd3_folder: Path,
    wan_folders: WanFolders,
    first_frames: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even imported, whatever else a job loads: encoders are larger than many a transformer."""

    def policy() -> Any:
        if kind == "flux":
            return FluxPolicy(model_settings(tiny_folder))
        if kind == "stable_diffusion_3":
            return StableDiffusion3Policy(model_settings(tiny_sd3_folder, kind=kind))
        case = I2V if kind == "wan i2v" else T2V
        return case.policy(wan_folders(case))

    loaded: list[str] = []
    real = parts._class

    def watched(name: str) -> Any:
        loaded.append(name)
        return real(name)

    monkeypatch.setattr(parts, "_class", watched)
    prompts = batch(CAPTIONS[:2])
    if kind == "wan i2v":
        prompts = replace(prompts, first_frames=first_frames[:2])
    first = prompt_embeddings(policy(), prompts, tmp_path)
    assert any(name.startswith("transformers:") for name in loaded)
    loaded.clear()
    second = prompt_embeddings(policy(), prompts, tmp_path)
    assert loaded, "the transformer and the codec"
    assert all(name.startswith("diffusers.") for name in loaded)
    assert torch.equal(first.tokens, second.tokens)
