"""Further policies that do not fit a GPU are told of, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from large_model import write_configuration

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.run.machine import GpuDevice
from bpgo.storage.files import repository_root
from bpgo.tools.planning import counts
from bpgo.tools.planning.further import further_policies_refused
from bpgo.tools.planning.model import (
    ASIDE,
    FURTHER,
    USABLE,
    Memory,
    arms_that_do_not_fit,
    further_bytes,
    memory,
    model_size,
)
from bpgo.tools.planning.work import arms_of

PARAMETERS = 11_901_408_320  # of FLUX.1-dev
COPY = 4 * PARAMETERS / 1e9  # float32
EXPERIMENT = {
    "title": "One",
    "training_reward": "scenes_ambiguous_a",
    "judges": ["oracle"],
    "arms": ["grpo", "diffusion_nft"],
    "seeds": [1],
}


def large(
    folder: Path,
    parameters: str = "full",
    arms: list[str] | None = None,
    model: dict[str, Any] | None = None,
    gpus: int = 1,
) -> Settings:
    """FLUX.1-dev, all of whose weights are trained."""
    experiments = {"one": EXPERIMENT | ({"arms": arms} if arms else {})}
    file = write_configuration(folder, model, training={"parameters": parameters})
    values = config.read_yaml(file) | {"sweeps": {}, "machine": {"gpus": gpus}}
    values["experiments"], values["smoke"] = experiments, {}
    return config.resolve(values, file.parent)


def least_without(settings: Settings) -> float:
    """Gigabytes of the GPU that takes a run without further policies, just so."""
    needed = memory(settings, model_size(settings))
    return needed.with_further(0, 0).least / USABLE


def gpu(gigabytes: float, name: str = "Made Up 1") -> GpuDevice:
    return GpuDevice(name, gigabytes, "580")


def test_what_an_arm_keeps(tmp_path: Path) -> None:
    """DiffusionNFT a lagging policy and the base, Flow-GRPO the base, GRPO nothing."""
    settings = large(tmp_path / "full", arms=["grpo", "flow_grpo", "diffusion_nft"])
    size = model_size(settings)
    kept = [further_bytes(settings, size, arm) for arm in arms_of(settings)]
    whole = 4 * PARAMETERS
    assert kept == [{}, {"base": whole}, {"old": whole, "base": whole}]
    needed = memory(settings, size)
    assert needed.standing[FURTHER] == pytest.approx(2 * COPY)
    assert needed.passing[ASIDE] == pytest.approx(COPY)  # the trained weights make room for `old`
    adapter = large(tmp_path / "lora", "lora", arms=["grpo", "diffusion_nft"])
    size = model_size(adapter)
    assert further_bytes(adapter, size, arms_of(adapter)[1]) == {"old": 4 * size.trained}
    plain = large(tmp_path / "plain", arms=["grpo"])
    needed = memory(plain, model_size(plain))
    assert (needed.standing[FURTHER], needed.passing[ASIDE]) == (0, 0)


def test_weights_set_aside_count_where_they_are_more_than_an_update() -> None:
    needed = Memory({"transformer": 10.0, FURTHER: 4.0}, {"decoding": 2.0, ASIDE: 5.0}, 3.0)
    assert needed.least == 10 + 4 + 5
    assert needed.with_further(1, 2).least == 10 + 1 + 3
    assert needed.with_further(0, 0).least == 10 + 3


def test_the_message_names_arm_policies_sizes_and_what_fits(tmp_path: Path) -> None:
    settings = large(tmp_path)
    there = least_without(settings) + COPY  # one copy would fit, two do not
    message = further_policies_refused(settings, [gpu(24), gpu(there), gpu(48)])
    assert message is not None
    assert message.startswith("arms.diffusion_nft keeps old (47.6 GB), base (47.6 GB): ")
    assert f"Made Up 1 with {there:.0f} GB" in message
    assert f"{least_without(settings):.0f} GB without" in message
    assert "training.parameters: lora (" in message
    assert message.endswith("or experiments without diffusion_nft")
    assert "\n" not in message


def test_only_the_arms_without_room_are_named(tmp_path: Path) -> None:
    settings = large(tmp_path, arms=["grpo", "flow_grpo", "diffusion_nft"])
    size, without = model_size(settings), least_without(settings)
    for copies, names in ((0.5, ["flow_grpo", "diffusion_nft"]), (1.2, ["diffusion_nft"])):
        found = arms_that_do_not_fit(settings, size, without + copies * COPY / USABLE)
        assert list(found) == names
    assert arms_that_do_not_fit(settings, size, without + 3.01 * COPY / USABLE) == {}


def test_what_does_not_fit_anyway_is_the_doctors_to_say(tmp_path: Path) -> None:
    settings = large(tmp_path)
    assert further_policies_refused(settings, [gpu(0.99 * least_without(settings))]) is None


def test_what_fits_goes_on(tmp_path: Path) -> None:
    settings = large(tmp_path / "full")
    assert (
        further_policies_refused(settings, [gpu(least_without(settings) + 3.01 * COPY / USABLE)])
        is None
    )
    adapter = large(tmp_path / "lora", "lora")
    assert further_policies_refused(adapter, [gpu(80)]) is None


def test_an_adapters_average_has_no_adapter_to_advise(tmp_path: Path) -> None:
    settings = large(tmp_path, "lora")
    message = further_policies_refused(settings, [gpu(least_without(settings) + 1e-6)])
    assert message is not None
    assert "What fits: experiments without diffusion_nft" in message


def test_gpus_that_share_the_weights_share_the_copies(tmp_path: Path) -> None:
    one, four = large(tmp_path / "one"), large(tmp_path / "four", gpus=4)
    found = [memory(each, model_size(each)).standing[FURTHER] for each in (one, four)]
    assert found[1] == pytest.approx(found[0] / 4)


def test_without_gpus_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("asked for the model's size")

    monkeypatch.setattr("bpgo.tools.planning.further.architecture_of", never)
    assert further_policies_refused(large(tmp_path / "a"), []) is None
    assert further_policies_refused(large(tmp_path / "b", gpus=0), [gpu(1)]) is None


@pytest.mark.parametrize("uncounted", [True, False])
def test_a_model_of_unknown_size(
    uncounted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even counted: that takes torch."""

    def never(*_: object) -> None:
        raise AssertionError("counted")

    monkeypatch.setattr(counts, "_counted_now", never)
    if uncounted:
        settings, stored = large(tmp_path), counts._stored()
        monkeypatch.setattr(counts, "_stored", lambda: stored | {"counts": []})
    else:
        settings = large(tmp_path, model={"path": "someone/unheard-of"})
    assert further_policies_refused(settings, [gpu(250)]) is None


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from bpgo.config import resolve;"
        "from bpgo.run.machine import GpuDevice;"
        "from bpgo.tools.planning.further import further_policies_refused as refused;"
        "settings = resolve.load(Path('config/flux_t2i.yaml'));"
        "assert settings.machine.gpus; refused(settings, [GpuDevice('Made Up', 80, '580')]);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers')))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=repository_root(), capture_output=True
    )
