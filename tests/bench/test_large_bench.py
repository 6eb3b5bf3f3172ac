"""The benchmark of published architectures: every path at tiny size, real sizes without memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from large_model import write_configuration

from bpgo import cli
from bpgo.config import resolve as config
from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.tools.bench import large
from bpgo.tools.bench.large import (
    Case,
    Options,
    bench_command,
    run_model_bench,
    speeds,
    utilization_of,
)
from bpgo.tools.bench.large_models import Sizes, architecture, settings_of
from bpgo.tools.bench.random_policy import brightness, random_embeddings, random_policy
from bpgo.tools.planning.model import size_of
from bpgo.tools.planning.run import make_plan

LORA, FULL = Case("lora", False), Case("full", False)
COMPILED = Case("lora", True)


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Any:
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)
    torch.compiler.reset()


def tiny(model: str, **changes: Any) -> Sizes:
    values = {"prompts": 1, "group_size": 2, "steps": 3} | changes
    return Sizes(model, "tiny", **values)


@pytest.mark.parametrize("model", ["flux", "sd3", "wan21"])
def test_a_tiny_copy_goes_through_the_real_core(model: str, tmp_path: Path) -> None:
    options = Options((LORA, FULL), reward="clip_h14", repeats=1)
    found = run_model_bench(tiny(model), options, tmp_path, "cpu")
    assert json.loads((tmp_path / f"bench_{model}.json").read_text()) == found
    assert [case["status"] for case in found["cases"]] == ["measured", "measured"]
    for case in found["cases"]:
        assert case["batch_size"] == 2
        assert case["method_over_reference"]["median"] > 0
        assert case["shares"]["training reward"]["median"] > 0
        assert case["share_outside_models"] < 1
        assert case["ratio_deviation"] < 0.1  # bfloat16, the same chunks
        assert all(value > 0 for value in case["images_per_second"].values())
        # Nobody knows a processor's peak, or counts its memory.
        assert set(case["model_flops"].values()) == {None}
        assert set(case["peak_gigabytes"].values()) == {None}
    assert found["cases"][0]["trained_parameters"] < found["cases"][1]["trained_parameters"]
    assert found["utilization"] == {}
    text = (tmp_path / f"bench_{model}.md").read_text()
    for words in ("random weights, tiny copy", "peak unknown", "| lora", "| full", "transformer"):
        assert words in text
    assert ("second pass" in text) == (model != "flux")
    assert ("clips/s" in text) == (model == "wan21")
    assert ("5 frames of 32 x 32 pixels" in text) == (model == "wan21")


def test_compiled_blocks(tmp_path: Path) -> None:
    """The compiler's front alone: it takes the blocks as they are, and gives the same results."""
    options = Options((COMPILED,), repeats=1, backend="eager")
    found = run_model_bench(tiny("flux", dtype="float32"), options, tmp_path, "cpu")
    (case,) = found["cases"]
    assert case["status"] == "measured"
    assert case["ratio_deviation"] < 1e-5
    assert "lora, compiled" in (tmp_path / "bench_flux.md").read_text()


def test_what_cannot_be_compiled_is_said(tmp_path: Path) -> None:
    options = Options((COMPILED, LORA), repeats=1, backend="no such backend")
    found = run_model_bench(tiny("flux"), options, tmp_path, "cpu")
    assert found["cases"][0]["status"].startswith("cannot be compiled here: ")
    assert found["cases"][1]["status"] == "measured"
    assert "cannot be compiled here" in (tmp_path / "bench_flux.md").read_text()


def test_out_of_memory_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = large._measure, []

    def small(sizes: Any, options: Any, case: Any, chosen: Any, device: str, batch: int) -> Any:
        seen.append(batch)
        if batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return real(sizes, options, case, chosen, device, batch)

    monkeypatch.setattr(large, "_measure", small)
    sizes = tiny("flux", prompts=2, group_size=4)
    found = run_model_bench(sizes, Options((LORA,), repeats=1), tmp_path, "cpu")
    assert seen == [8, 4, 2]
    assert found["cases"][0]["status"] == "measured"
    assert found["cases"][0]["batch_size"] == 2


def test_out_of_memory_ends_one_case_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = large._measure

    def full_does_not_fit(sizes: Any, options: Any, case: Case, *others: Any) -> Any:
        if case.parameters == "full":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return real(sizes, options, case, *others)

    monkeypatch.setattr(large, "_measure", full_does_not_fit)
    found = run_model_bench(tiny("flux"), Options((FULL, LORA), repeats=1), tmp_path, "cpu")
    assert [case["status"] for case in found["cases"]] == [
        "out of memory: CUDA out of memory",
        "measured",
    ]
    assert "out of memory" in (tmp_path / "bench_flux.md").read_text()


def test_what_is_far_too_large_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "_measure", lambda *_: pytest.fail("it was tried"))
    monkeypatch.setattr(large, "_device_gigabytes", lambda _: 80.0)
    found = run_model_bench(Sizes("flux"), Options((FULL,)), tmp_path, "cpu")
    assert found["cases"][0]["status"] == (
        "does not fit: weights, gradients and optimizer take 214 GB, 73.6 GB can be used"
    )


@pytest.mark.parametrize(
    ("model", "parameters", "trained"),
    [
        ("flux", 11_901_408_320, 149_422_080),
        ("sd3", 2_243_171_520, 18_776_064),
        ("wan21", 1_418_996_800, 23_592_960),
    ],
)
def test_the_real_architecture_without_memory(model: str, parameters: int, trained: int) -> None:
    """On the `meta` device: the adapter's policy, its types, and what is trained."""
    settings = settings_of(Sizes(model), "lora", 1)
    chosen = architecture(Sizes(model))
    policy = random_policy(settings, chosen, "meta")
    adapter = policy.trainable()
    frozen = [p for p in policy.transformer.parameters() if not p.requires_grad]
    assert sum(value.numel() for value in frozen) == parameters
    # As diffusers loads published weights, some of Wan's stay float32: norms, shifts and scales.
    whole = {name for name, p in policy.transformer.named_parameters() if p.dtype == torch.float32}
    assert {p.dtype for p in frozen} == {torch.bfloat16} | (
        {torch.float32} if model == "wan21" else set()
    )
    assert any("scale_shift_table" in name for name in whole) == (model == "wan21")
    assert sum(value.numel() for value in adapter.values()) == trained
    assert {value.dtype for value in adapter.values()} == {torch.float32}
    assert size_of(settings, chosen).trained == trained
    assert torch.get_default_dtype() == torch.float32  # as it was


@pytest.mark.parametrize("model", ["flux", "sd3", "wan21"])
def test_embeddings_have_the_real_shapes(model: str) -> None:
    settings = settings_of(Sizes(model), "lora", 1)
    found = random_embeddings(settings, architecture(Sizes(model)), 3)
    tokens, pooled = {"flux": (512, 768), "sd3": (77 + 256, 2048), "wan21": (512, None)}[model]
    assert found.tokens.shape == (3, tokens, 4096)
    assert (found.pooled is None) if pooled is None else (found.pooled.shape == (3, pooled))
    assert found.tokens.dtype == torch.bfloat16
    assert (found.negative_tokens is None) == (model == "flux")


def test_settings_are_the_model_files_own() -> None:
    file = config.read_yaml(config.default_configfile().parent / "models" / "flux1_dev.yaml")
    settings = settings_of(Sizes("flux"), "lora", 4)
    assert settings.model.lora.rank == file["lora"]["rank"]
    assert settings.model.resolution == file["resolution"]
    assert settings.model.gradient_checkpointing == file["gradient_checkpointing"]
    assert settings.rollout.batch_size == 4
    changed = settings_of(Sizes("flux", resolution=512, gradient_checkpointing=False), "full", 1)
    assert changed.model.resolution == 512
    assert not changed.model.gradient_checkpointing
    assert changed.training.parameters == "full"


def test_an_iteration_is_as_its_experiment_trains() -> None:
    """Clips, noise levels and guidance of config/wan21_t2v.yaml, unless options say otherwise."""
    settings = settings_of(Sizes("wan21"), "lora", 1)
    model, rollout = settings.model, settings.rollout
    assert (model.frames, model.columns, model.resolution) == (49, 832, 480)
    assert (rollout.steps, rollout.guidance_scale) == (16, 5.0)
    assert settings.arms["bpgo"].noise_level == settings.arms["grpo"].noise_level == 0.25
    assert settings.arms["bpgo"].trust.prior == "sft_mean"
    changed = settings_of(Sizes("wan21", frames=17, width=416, resolution=240, steps=4), "lora", 1)
    model = changed.model
    assert (model.frames, model.columns, model.resolution) == (17, 416, 240)
    assert changed.rollout.steps == 4
    assert settings_of(Sizes("flux"), "lora", 1).arms["grpo"].noise_level == 0.3


def test_the_scheduler_is_the_pipelines_own() -> None:
    """Wan's noise levels, shifted by 3, come from UniPC; the last is 0."""
    sizes = tiny("wan21")
    policy = random_policy(settings_of(sizes, "lora", 1), architecture(sizes), "cpu")
    assert type(policy.scheduler).__name__ == "UniPCMultistepScheduler"
    sigmas = policy.sigmas(3)
    even = torch.linspace(1, 0, 4)[1:3]
    assert sigmas[1:3].tolist() == pytest.approx((3 * even / (1 + 2 * even)).tolist(), abs=2e-3)
    assert sigmas[-1] == 0


def test_speeds_by_hand() -> None:
    """8 images, 6 steps, 3 trained; a rollout of 3 s, then 1 s of decoding, an update of 5 s.

    Both groups of four share their start, so that its first step is made twice instead of 8 times.
    """
    sizes = Sizes("flux", resolution=512, steps=6, gradient_checkpointing=True)
    settings = settings_of(sizes, "lora", 8)
    size = size_of(settings, architecture(sizes))
    figures: dict[str, Any] = {
        "iteration_seconds": {
            "wall": {
                part: {"median": value}
                for part, value in (("total", 10.0), ("rollout", 3.0), ("update", 5.0))
            }
        },
        "shares": {
            piece: {"median": value}
            for piece, value in (("decode", 0.1), ("transformer", 0.7), ("training reward", 0.1))
        },
    }
    figures["passes_made"] = {"rollout": 2 + 8 * 5, "trained": 8 * 3, "others": 0}
    peak = 1e15
    found = speeds(settings, size, figures, peak)
    forward = size.transformer.forward_flops
    assert forward == pytest.approx(21.5e12, rel=0.01)
    assert found["utilization"]["rollout"] == pytest.approx(42 * forward / 3.0 / peak)
    updates = 8 * 3
    assert found["model_flops"]["update"] == pytest.approx(updates * size.update_flops / 5.0 / peak)
    assert found["utilization"]["update"] == pytest.approx(
        updates * (size.update_flops + forward) / 5.0 / peak
    )
    assert found["utilization"]["decoder"] == pytest.approx(8 * size.decoder_flops / peak)
    assert found["images_per_second"] == {"rollout": 2.0, "update": 1.6, "iteration": 0.8}
    assert found["share_outside_models"] == pytest.approx(0.1)


def test_the_plan_reads_what_the_benchmark_writes(tmp_path: Path) -> None:
    """A benchmark as a GPU would have written it, the eager case's figures taken."""
    used = {"rollout": 0.5, "update": 0.4, "decoder": 0.3}
    case = {"parameters": "lora", "compiled": False, "status": "measured", "utilization": used}
    other = case | {"compiled": True, "utilization": dict.fromkeys(used, 0.9)}
    missing = {"parameters": "full", "compiled": False, "status": "out of memory: x"}
    found = run_model_bench(tiny("flux"), Options(()), tmp_path, "cpu")
    size = size_of(settings_of(Sizes("flux"), "lora", 1), architecture(Sizes("flux")))
    found |= {"size": "full", "gpu": "NVIDIA H100 80GB HBM3"}
    found |= {"transformer_parameters": size.transformer.parameters}
    found["utilization"] = utilization_of([case, other, missing])
    assert found["utilization"] == {"lora": used}
    (tmp_path / "bench_flux.json").write_text(json.dumps(found))
    plan = make_plan(write_configuration(tmp_path / "experiment"), gpu="H100", folder=tmp_path)
    assert plan.rates.measured
    assert plan.rates.forward == pytest.approx(
        plan.size.transformer.forward_flops / (0.5 * 989.4e12)
    )
    # A larger model of the same pipeline uses a GPU in another way.
    (tmp_path / "bench_flux.json").write_text(json.dumps(found | {"transformer_parameters": 7}))
    plan = make_plan(write_configuration(tmp_path / "again"), gpu="H100", folder=tmp_path)
    assert not plan.rates.measured


def test_a_cheap_reward_differs_between_images() -> None:
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    assert brightness(Samples(images, ["a", "b"])).tolist() == [0.0, 1.0]
    clips = torch.stack([images, 1 - images, torch.ones_like(images)])
    assert brightness(Samples(clips, ["a", "b", "c"])).tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        (Sizes("fluxx"), Options((LORA,)), "--model: 'fluxx' is unknown. Did you mean 'flux'?"),
        (Sizes("flux", "small"), Options((LORA,)), "--size: 'small' is unknown"),
        (Sizes("flux", dtype="int8"), Options((LORA,)), "--dtype: 'int8' is unknown"),
        (Sizes("flux"), Options((LORA,), reward="x"), "--reward: 'x' is unknown"),
        (Sizes("flux"), Options((Case("some", False),)), "--parameters: 'some' is unknown"),
        (Sizes("flux", frames=9), Options((LORA,)), "--frames: 9 is for a model that makes clips"),
        (Sizes("sd3", width=64), Options((LORA,)), "--width: 64 is for a model that makes clips"),
        (Sizes("wan21", "tiny", frames=8), Options((LORA,)), "such as 5 or 9"),
        (Sizes("wan21", "tiny", width=40), Options((LORA,)), "width: 40 is not a multiple of 16"),
    ],
)
def test_mistakes(sizes: Sizes, options: Options, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_model_bench(sizes, options, tmp_path)
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_weights_must_be_random(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --random-weights"):
        bench_command(Sizes("flux"), tmp_path, False, "both", False, None, "brightness", 1)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(large, "run_model_bench", lambda *given: seen.append(given))
    line = "bpgo bench --model wan21 --random-weights --size tiny --parameters lora --steps 4"
    line += f" --frames 9 --width 64 --resolution 32 --output {tmp_path}"
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit) as caught:
        cli.main()
        raise SystemExit(0)
    assert not caught.value.code
    sizes, options, output = seen[0]
    assert (sizes.model, sizes.size, sizes.steps) == ("wan21", "tiny", 4)
    assert (sizes.frames, sizes.width, sizes.resolution) == (9, 64, 32)
    assert options.cases == (Case("lora", False), Case("lora", True))
    assert output == tmp_path
