"""The calibration's samples in files: read back to the bit, or refused with one message."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from calibrated import draw_calibrate_judge
from safetensors.torch import load_file, save_file
from tiny_world import ARMS, tiny_settings

from bpgo.config.jobs import draw_digest
from bpgo.config.settings import MAIN, Settings
from bpgo.core.layout import Layout
from bpgo.core.rollout import rollout, rollout_noise
from bpgo.errors import UserError
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import Calibration, Plan, Samples
from bpgo.steps import loading
from bpgo.steps.calibrate import calibrate
from bpgo.steps.draw import draw
from bpgo.steps.draws import open_draws, save_draws
from bpgo.steps.judge import judge
from bpgo.steps.prompts import read_prompts, write_prompts
from bpgo.storage.files import read_json, repository_root, sha256, write_json
from bpgo.storage.tables import write_table

PROMPTS, GROUP = 3, 2  # of the tiny configuration's calibration
PART = 2  # prompts of a part: four samples in a forward pass


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    return tiny_settings(tiny_folder, rollout={"batch_size": PART * GROUP})


@pytest.fixture(scope="module")
def root(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, draws, a calibration and the judges' scores."""
    root = tmp_path_factory.mktemp("draws")
    write_prompts(settings, "train", root / "prompts" / "train.jsonl")
    draw_calibrate_judge(settings, "tiny", root / "prompts" / "train.jsonl", root)
    return root


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """Those files, to be damaged."""
    return Path(shutil.copytree(root, tmp_path / "copy"))


def prompts_of(folder: Path) -> Path:
    return folder / "prompts" / "train.jsonl"


def index_of(folder: Path) -> Path:
    return folder / "draws" / "draws.json"


def drawn_again(settings: Settings, root: Path, noisy_steps: int = 3) -> torch.Tensor:
    """The samples, drawn in this process as one would by hand: no files in between."""
    batch = read_prompts(prompts_of(root))
    policy = loading.load_policy(settings, "cpu", 0)
    embeddings = prompt_embeddings(policy, batch, loading.embedding_cache(prompts_of(root)))
    found = []
    for rows in (slice(0, 2), slice(2, 3)):
        ids = batch.ids[:PROMPTS][rows]
        noisy = torch.tensor([[step < noisy_steps for step in range(4)]] * len(ids) * GROUP)
        own = torch.tensor([[0] * 5, [1] * 5]).repeat(len(ids), 1)
        plan = Plan(noisy, own, torch.zeros(len(own), 0, dtype=torch.long))
        noise = rollout_noise(policy.latent_shape, 4, 0, 0, ids, own)
        index = torch.arange(rows.start, rows.stop).repeat_interleave(GROUP)
        arm: Any = settings.arms["grpo"]
        kernel = (arm.kernel, arm.noise_level)
        sigmas, chosen = policy.sigmas(4), embeddings.select(index)
        layout = Layout(len(ids), GROUP, PART * GROUP)
        found.append(rollout(policy, chosen, noise, sigmas, *kernel, plan, layout).latents[:, -1])
    return torch.cat(found)


def test_what_is_read_back_is_what_is_drawn(settings: Settings, root: Path) -> None:
    digest = draw_digest(settings, settings.sampler_of("tiny"))
    batch = read_prompts(prompts_of(root))[:PROMPTS]
    draws = open_draws(index_of(root), digest, batch, GROUP)
    parts = list(draws.parts())
    assert [len(chosen) for chosen, _ in parts] == [4, 2]
    names = [name for chosen, _ in parts for name in chosen.ids]
    assert names == [name for name in batch.ids for _ in range(GROUP)]
    latents = torch.cat([part for _, part in parts])
    assert latents.dtype == torch.float32
    assert torch.equal(latents, drawn_again(settings, root))


def test_noise_in_the_first_steps_alone(settings: Settings, root: Path, tmp_path: Path) -> None:
    grpo: Any = settings.arms["grpo"]
    arms = settings.arms | {"grpo": grpo.model_copy(update={"stochastic_steps": 2})}
    changed = settings.model_copy(update={"arms": arms})
    (sampler,) = changed.samplers()
    draw(changed, sampler.name, prompts_of(root), tmp_path / "draws.json")
    digest, batch = draw_digest(changed, sampler), read_prompts(prompts_of(root))[:PROMPTS]
    parts = open_draws(tmp_path / "draws.json", digest, batch, GROUP).parts()
    latents = torch.cat([part for _, part in parts])
    assert torch.equal(latents, drawn_again(changed, root, noisy_steps=2))
    assert not torch.equal(latents, drawn_again(changed, root, noisy_steps=3))


def test_scores_are_those_of_samples_that_never_were_in_a_file(
    settings: Settings, root: Path
) -> None:
    """To the bit, in calibration.json and in samples.parquet."""
    latents, batch = drawn_again(settings, root), read_prompts(prompts_of(root))[:PROMPTS]
    policy = loading.load_policy(settings, "cpu", 0)
    rewards = loading.load_rewards(settings, settings.in_environment("tiny", MAIN), "cpu")
    rows = []
    for start, stop in ((0, 4), (4, 6)):
        chosen = batch[[row // GROUP for row in range(start, stop)]]
        samples = Samples(policy.decode(latents[start:stop]), chosen.texts)
        for name, reward in rewards.items():
            for k, score in enumerate(reward(samples).tolist()):
                key = (chosen.ids[k], chosen.ambiguities[k], k % GROUP)
                rows.append((*key, name, score, False))
    columns = ["prompt_id", "ambiguity", "sample", "reward", "score", "cut"]
    expected = pd.DataFrame(rows, columns=columns)
    pd.testing.assert_frame_equal(
        pd.read_parquet(root / "samples.parquet"), expected, check_exact=True
    )
    scores = expected[expected.reward == "oracle"]
    means = {str(k): v for k, v in scores.groupby("prompt_id").score.mean().items()}
    wanted = Calibration(scores.score.mean(), scores.score.std(), scores.score.min(), means)
    assert Calibration.load(root / "calibration.json") == wanted


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip], ids=["missing", "cut", "changed"])
@pytest.mark.parametrize("step", ["calibrate", "judge"])
def test_a_damaged_part_is_named(
    damage: Callable[[Path], None], step: str, copy: Path, settings: Settings
) -> None:
    part = copy / "draws" / "part_00001.safetensors"
    damage(part)
    with pytest.raises(UserError) as caught:
        again(settings, copy, step)
    message = str(caught.value)
    assert message.startswith(f"{index_of(copy)}: {part.name}: is missing or damaged (")
    assert message.endswith("). Remove that file, and run `draw` (or the workflow) again")
    assert "\n" not in message


def again(settings: Settings, folder: Path, step: str) -> None:
    """A step that decodes the samples of `folder`; its own earlier files are removed."""
    files = prompts_of(folder), index_of(folder)
    if step == "calibrate":
        (folder / "calibration.json").unlink()
        calibrate(settings, "tiny", *files, folder)
    else:
        scores = pd.read_parquet(folder / "scores.parquet")
        write_table(scores[scores.reward == "oracle"], folder / "scores.parquet")
        judge(settings, "tiny", *files, folder / "calibration.json", folder)


def test_swapped_parts_are_noticed(copy: Path, settings: Settings) -> None:
    first, second = (copy / "draws" / f"part_0000{k}.safetensors" for k in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"part_00000\.safetensors: is missing or damaged \(its"):
        again(settings, copy, "calibrate")


def test_a_part_that_its_index_describes_wrongly(copy: Path, settings: Settings) -> None:
    """Digests fit, content does not: half the samples, or another type."""
    part, index = copy / "draws" / "part_00000.safetensors", read_json(index_of(copy))
    latents = load_file(part)["latents"]
    for changed in ({"latents": latents[:2].clone()}, {"other": latents}):
        save_file(changed, part)
        index["parts"][0]["sha256"] = sha256(part)
        write_json(index_of(copy), index)
        with pytest.raises(UserError, match=r"part_00000\.safetensors: is missing or damaged"):
            again_from(settings, copy)


def again_from(settings: Settings, folder: Path) -> None:
    calibrate(settings, "tiny", prompts_of(folder), index_of(folder), folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file: run `draw` first"),
        ("", "does not list a calibration's samples"),
        ("[]", "does not list a calibration's samples"),
        ('{"parts": [{"file": "part_00000.safetensors"}]}', "(no 'prompts')"),
    ],
)
def test_an_index_that_is_none(
    content: str | None, words: str, copy: Path, settings: Settings
) -> None:
    index_of(copy).unlink()
    if content is not None:
        index_of(copy).write_text(content)
    with pytest.raises(UserError) as caught:
        again_from(settings, copy)
    assert str(caught.value).startswith(f"{index_of(copy)}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": {"seed": 1}},
        {"calibration": {"samples_per_prompt": 3}},
        {"rollout": {"steps": 5}},
        {"arms": {name: {**arm, "noise_level": 0.9} for name, arm in ARMS.items()}},
        {"model": {"prompt_tokens": 9}},
    ],
)
def test_samples_of_another_configuration_are_refused(
    changes: dict[str, Any], copy: Path, tiny_folder: Path
) -> None:
    other = tiny_settings(tiny_folder, **changes)
    with pytest.raises(UserError, match="belongs to another configuration: its config_digest is"):
        again_from(other, copy)


def test_samples_of_other_prompts_are_refused(copy: Path, settings: Settings) -> None:
    lines = prompts_of(copy).read_text().splitlines()
    prompts_of(copy).write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(UserError, match="was changed after it was written"):
        again_from(settings, copy)
    prompts_of(copy).with_suffix(".manifest.json").unlink()  # as a list of the user's own
    with pytest.raises(UserError, match="holds samples of other prompts than the 3 given ones"):
        again_from(settings, copy)


def test_other_files_of_its_folder_stay(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    digest, batch = "digest", read_prompts(prompts_of(root))[:PROMPTS]
    for latents in (torch.zeros(4, 2), torch.ones(4, 2)):
        save_draws(tmp_path / "draws.json", digest, batch, GROUP, [latents, latents[:2]])
        parts = open_draws(tmp_path / "draws.json", digest, batch, GROUP).parts()
        assert torch.equal(
            torch.cat([part for _, part in parts]), torch.cat([latents, latents[:2]])
        )
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    names = ["draws.json", "mine", "part_00000.safetensors", "part_00001.safetensors"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names


def test_a_drawing_that_fails_leaves_the_earlier_one(copy: Path, settings: Settings) -> None:
    before = {file.name: file.read_bytes() for file in (copy / "draws").iterdir()}
    batch = read_prompts(prompts_of(copy))[:PROMPTS]

    def parts() -> Any:
        yield torch.zeros(4, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_draws(index_of(copy), "digest", batch, GROUP, parts())
    assert {file.name: file.read_bytes() for file in (copy / "draws").iterdir()} == before
    assert not list(copy.glob(".draws*"))


def test_an_unknown_sampler(settings: Settings, root: Path, tmp_path: Path) -> None:
    name = settings.sampler_of("tiny").name
    with pytest.raises(UserError, match=rf"--sampler: 'nose' is unknown\..* Known: {name}$"):
        draw(settings, "nose", prompts_of(root), tmp_path / "draws.json")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rewards that are loaded from now on."""
    loaded: list[str] = []
    real = loading.load_rewards

    def watched(settings: Settings, names: list[str], *others: Any) -> Any:
        loaded.extend(names)
        return real(settings, names, *others)

    monkeypatch.setattr(loading, "load_rewards", watched)
    return loaded


def test_judging_takes_the_scores_that_are_there(
    copy: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, before = counted(monkeypatch), (copy / "samples.parquet").read_bytes()
    monkeypatch.setattr(loading, "load_decoder", None)  # nothing is decoded
    (copy / "draws" / "part_00000.safetensors").unlink()
    judge(settings, "tiny", prompts_of(copy), index_of(copy), copy / "calibration.json", copy)
    assert loaded == []
    assert (copy / "samples.parquet").read_bytes() == before


def test_that_needs_no_torch() -> None:
    """Which would be most of the job."""
    code = "import sys, bpgo.steps.judge; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository_root())


def with_a_judge(tiny_folder: Path, settings: Settings, **changes: Any) -> Settings:
    """One judge more; `changes` of the one that is there."""
    rewards: dict[str, Any] = {k: v.model_dump() for k, v in settings.rewards.items()}
    rewards["oracle_strict"] |= changes
    rewards["pool_b"] = {"kind": "scenes_preference", "title": "B", "world": "clear", "pool": "b"}
    entry = settings.experiments["tiny"].model_dump()
    entry["judges"] = ["oracle_strict", "pool_b"]
    return tiny_settings(
        tiny_folder,
        rewards=rewards,
        experiments={"tiny": entry},
        rollout={"batch_size": PART * GROUP},
    )


def test_a_further_judge_scores_alone_and_changes_no_calibration(
    copy: Path, tiny_folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, loaded = with_a_judge(tiny_folder, settings), counted(monkeypatch)
    files = prompts_of(copy), index_of(copy)
    judge(more, "tiny", *files, copy / "calibration.json", copy)
    assert loaded == ["pool_b"]
    draw_calibrate_judge(more, "tiny", prompts_of(copy), copy / "at_once")
    for name in ("calibration.json", "samples.parquet", "scales.json"):
        assert (copy / name).read_bytes() == (copy / "at_once" / name).read_bytes()


def test_a_judge_with_other_settings_scores_again(
    copy: Path, tiny_folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, loaded = with_a_judge(tiny_folder, settings, output="soft"), counted(monkeypatch)
    before = pd.read_parquet(copy / "samples.parquet")
    files = prompts_of(copy), index_of(copy)
    judge(other, "tiny", *files, copy / "calibration.json", copy)
    assert loaded == ["oracle_strict", "pool_b"]
    after = pd.read_parquet(copy / "samples.parquet")
    for name, same in (("oracle", True), ("oracle_strict", False)):
        first, second = (t[t.reward == name].score.tolist() for t in (before, after))
        assert (first == second) == same


@pytest.mark.parametrize("content", [None, b"no table"])
def test_scores_that_cannot_be_read(content: bytes | None, copy: Path, settings: Settings) -> None:
    scores = copy / "scores.parquet"
    scores.unlink()
    if content is not None:
        scores.write_bytes(content)
    files = prompts_of(copy), index_of(copy)
    with pytest.raises(UserError, match="run `calibrate`") as caught:
        judge(settings, "tiny", *files, copy / "calibration.json", copy)
    assert str(caught.value).startswith(f"{scores}: ")


def test_two_experiments_share_what_is_drawn(
    tiny_folder: Path, settings: Settings, root: Path, tmp_path: Path
) -> None:
    entry = settings.experiments["tiny"].model_dump()
    other = {**entry, "training_reward": "oracle_strict", "judges": ["oracle"]}
    both = tiny_settings(
        tiny_folder,
        experiments={"tiny": entry, "other": other},
        rollout={"batch_size": PART * GROUP},
    )
    assert both.samplers() == settings.samplers()
    for experiment in both.experiments:
        calibrate(both, experiment, prompts_of(root), index_of(root), tmp_path / experiment)
    first = Calibration.load(tmp_path / "tiny" / "calibration.json")
    assert first == Calibration.load(root / "calibration.json")
    strict = pd.read_parquet(root / "samples.parquet").query("reward == 'oracle_strict'")
    second = Calibration.load(tmp_path / "other" / "calibration.json")
    assert second.mean == strict.score.mean()
