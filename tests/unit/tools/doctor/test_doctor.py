"""Verdicts on machines made up, and the screen."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from large_model import write_configuration

from bpgo.config import resolve as config
from bpgo.run.machine import GpuDevice, Machine, Slurm, TorchBuild
from bpgo.storage.files import repository_root, write_json
from bpgo.tools.doctor import run as doctoring
from bpgo.tools.doctor.published import missing_parts, published_files
from bpgo.tools.doctor.run import Examination, as_json, examine, report
from bpgo.tools.doctor.software import Environment, Package, environments, packages
from bpgo.tools.doctor.verdict import Verdict, judge
from bpgo.tools.screen import show

DEFAULT = config.default_configfile()
H100 = GpuDevice("NVIDIA H100 80GB HBM3", 85.5, "580.65.06")
SMALL = Machine(
    python="3.11.7",
    system="Linux x86_64",
    processor="A processor",
    cores=2,
    memory=16.0,
    disks={"results": (Path("results"), 500.0), "hub cache": (Path("cache"), 500.0)},
    gpus=[],
    torch=TorchBuild("2.13.0", "cuda 13.0"),
    conda=None,
    slurm=None,
)
GPU = replace(SMALL, gpus=[H100], memory=128.0)
INSTALLED = [Package("torch", "main", "2.13.0", "2.13.0+cu130")]
OURS = [Environment("main", Path("main.yaml"), made=False)]


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FLUX.1-dev, which is not on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return write_configuration(tmp_path)


def verdict(
    file: Path,
    machine: Machine = SMALL,
    installed: list[Package] = INSTALLED,
    known: list[Environment] = OURS,
    token: bool = False,
) -> Verdict:
    return judge(file, machine, installed, known, token)


def test_the_embedded_default_runs_anywhere() -> None:
    found = verdict(DEFAULT)
    assert found.ready
    assert found.summary == "can run"
    assert [file.path for file in found.files] == ["bpgo/scenes/weights/policy"]


def test_weights_to_fetch(large: Path) -> None:
    found = verdict(large, GPU)
    assert found.summary == "can run after fetching 33.7 GB"
    text = "\n".join(found.todo)
    assert "1 file or folder is not here, 33.7 GB" in text
    assert "`hf download`" in text
    assert "model 'FLUX.1-dev': accept the licence on its page at the hub" in text
    assert "accept the licence" not in "\n".join(verdict(large, GPU, token=True).todo)


@pytest.mark.parametrize("index", ["{", '{"_class_name": "FluxPipeline", "vae": ["d", "V"]}', "[]"])
def test_a_model_in_part(index: str, tmp_path: Path) -> None:
    """What is broken or unknown is said; nothing fails."""
    folder = tmp_path / "pipeline"
    for part in ("transformer", "vae", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text(index)
    found = verdict(write_configuration(tmp_path, {"path": str(folder)}), GPU)
    assert "is there in part; missing: " in found.todo[0]
    assert "its cost cannot be told" in found.notes[0]


def test_prompts_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt set's files have caches of their own."""
    monkeypatch.setenv("BPGO_CACHE", str(tmp_path / "cache"))
    file = write_configuration(tmp_path, _SCENES | {"path": "bpgo/scenes/weights/policy"})
    values = config.read_yaml(file) | {"prompts": "drawbench"}
    values["evaluation"] |= {"prompts": 8, "divergence_prompts": 0, "diversity_prompts": 0}
    values["rollout"] |= {"prompts_per_iteration": 2}
    values["calibration"] |= {"prompts": 2}
    file.write_text(yaml.safe_dump(values))
    found = verdict(file)
    assert "python -m bpgo fetch-prompts" in found.todo[0]
    assert any(entry.what.startswith("prompts '") for entry in found.files)
    assert found.summary.startswith("can run after fetching")


def test_a_model_that_needs_a_gpu(large: Path) -> None:
    found = verdict(large)
    # transformer 23.8, T5-XXL 9.5, adapter 0.6, decoder 0.2; 92 % of a GPU is usable
    assert "needs a GPU with 37.4 GB" in found.summary
    assert "here: none" in "\n".join(found.todo)
    small_gpu = GpuDevice("NVIDIA GeForce RTX 3090", 25.8, "580")
    found = verdict(large, replace(SMALL, gpus=[small_gpu]))
    assert "needs a GPU with" in found.summary
    assert "NVIDIA GeForce RTX 3090 (25.8 GB)" in "\n".join(found.todo)
    cluster = replace(SMALL, slurm=Slurm({"gpu": "gpu:4"}))
    assert "--workflow-profile profiles/slurm" in "\n".join(verdict(large, cluster).todo)


def test_several_gpus_share_full_weights(tmp_path: Path) -> None:
    """18 bytes a parameter, autocast's copy included, and 4 of the reference that KL needs."""
    sizes = {"training": {"parameters": "full"}, "machine": {"gpus": 8}}
    file = write_configuration(tmp_path, **sizes)
    assert "needs 8 GPUs with" in verdict(file, GPU).summary
    assert "GPU" not in verdict(file, replace(GPU, gpus=[H100] * 8)).summary
    alone = write_configuration(tmp_path / "alone", training={"parameters": "full"})
    assert "needs a GPU with 30" in verdict(alone, GPU).summary


def test_a_torch_that_does_not_see_the_gpu(large: Path) -> None:
    blind = replace(GPU, torch=TorchBuild("2.13.0+cpu", "cpu"))
    assert "torch 2.13.0+cpu is built for the CPU" in "\n".join(verdict(large, blind).todo)


def test_memory_beside_the_gpus(large: Path) -> None:
    found = verdict(large, replace(GPU, memory=16.0))
    assert "needs 27.0 GB of memory beside the GPU's" in found.summary  # 23.8 of them weights
    assert "this machine has 16.0 GB" in "\n".join(found.todo)


def test_disks_that_are_full(large: Path) -> None:
    full = {"results": (Path("results"), 0.1), "hub cache": (Path("cache"), 20.0)}
    found = verdict(large, replace(GPU, disks=full))
    assert "needs 33.7 GB free for files to fetch" in found.summary
    assert "free for results" in found.summary
    assert "cache has 20.0 GB free" in "\n".join(found.todo)


def test_missing_packages_block_and_other_versions_do_not() -> None:
    other = [Package("torch", "main", "2.13.0", "2.11.0")]
    found = verdict(DEFAULT, installed=other)
    assert found.ready
    assert "other versions than the pinned ones" in found.notes[0]
    assert "torch 2.11.0" in found.notes[0]
    none = [Package("peft", "main", "0.21.2", ""), Package("timm", "rewards", "1.0.31", "")]
    found = verdict(DEFAULT, installed=none)
    assert found.summary == "needs packages: peft"  # the embedded rewards need no timm
    assert "pip install -c constraints.txt" in found.todo[0]


def with_environment(folder: Path, name: str) -> Path:
    """The default, with one judge in an environment of its own."""
    file = write_configuration(folder, {"path": "bpgo/scenes/weights/policy"} | _SCENES)
    path = file.parent / "rewards" / "oracle_strict.yaml"
    path.write_text(yaml.safe_dump(config.read_yaml(path) | {"environment": name}))
    return file


_SCENES: dict[str, Any] = {
    "title": "Scenes",
    "revision": None,
    "gigabytes": 0.0,
    "gated": False,
    "dtype": "float32",
    "resolution": 24,
    "prompt_tokens": 12,
}


def test_an_environment_of_its_own(tmp_path: Path) -> None:
    file = with_environment(tmp_path, "hpsv2")
    assert verdict(file).summary == "needs the environment 'hpsv2'"
    unmade = [*OURS, Environment("hpsv2", Path("hpsv2.yaml"), made=False)]
    found = verdict(file, known=unmade)
    assert found.summary == "needs conda for oracle_strict"
    assert "--use-conda" in found.todo[0]
    with_conda = verdict(file, replace(SMALL, conda="/opt/conda/bin/conda"), known=unmade)
    assert with_conda.ready
    assert "makes the environment 'hpsv2' at its first use" in with_conda.notes[0]
    made = [*OURS, Environment("hpsv2", Path("hpsv2.yaml"), made=True)]
    assert verdict(file, known=made).ready
    here = [*OURS, Environment("hpsv2", Path("hpsv2.yaml"), made=False, here=True)]
    found = verdict(file, known=here)
    assert found.ready
    assert "are installed here" in found.notes[0]


def test_environments_that_snakemake_made(tmp_path: Path) -> None:
    for folder in ("workflow/envs", ".snakemake/conda"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("main", "apart"):
        (tmp_path / "workflow/envs" / f"{name}.yaml").write_text(f"dependencies: [{name}]\n")
    (tmp_path / ".snakemake/conda" / "abc123_.yaml").write_text("dependencies: [apart]\n")
    assert {entry.name: entry.made for entry in environments(tmp_path)} == {
        "main": False,
        "apart": True,
    }
    assert "main" in {entry.name for entry in environments()}


@pytest.mark.parametrize(
    ("package", "shared", "here"),
    [("safetensors", None, True), ("no-such-package", None, False), ("safetensors", "0.1", False)],
)
def test_environments_that_this_python_stands_in_for(
    package: str, shared: str | None, here: bool, tmp_path: Path
) -> None:
    """Its own package is installed, and what it shares with ours has its versions."""
    numpy = next(entry.found for entry in packages(None) if entry.name == "numpy")
    (tmp_path / "workflow/envs").mkdir(parents=True)
    for name, pins in (
        ("main", [f"numpy=={numpy}"]),
        ("apart", [f"{package}==9", "old-protobuf==1", f"numpy=={shared or numpy}"]),
    ):
        content = {"dependencies": ["python =3.11", "pip", {"pip": pins}]}
        (tmp_path / "workflow/envs" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    assert {entry.name: entry.here for entry in environments(tmp_path)} == {
        "main": True,
        "apart": here,
    }


def test_eight_bits_need_their_package(tmp_path: Path) -> None:
    file = write_configuration(
        tmp_path,
        _SCENES | {"path": "bpgo/scenes/weights/policy"},
        training={"optimizer": "adamw_8bit"},
    )
    none = [*INSTALLED, Package("bitsandbytes", "optional", "", "")]
    found = verdict(file, installed=none)
    assert found.summary == "needs packages: bitsandbytes"
    assert "-e '.' bitsandbytes" in found.todo[0]


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("titel: x\n")
    found = verdict(file)
    assert not found.ready
    assert found.summary == "its settings are wrong"
    assert "Did you mean 'title'?" in found.todo[0]


def test_the_same_file_is_counted_once(large: Path) -> None:
    settings = config.load(large)
    paths = [file.path for file in published_files(settings)]
    assert len(paths) == len(set(paths))
    twice = settings.model_copy(update={"rewards": {"a": settings.model, "b": settings.model}})
    assert len(published_files(twice)) == 1


def test_published_features_are_files_too() -> None:
    values = config.read_yaml(DEFAULT) | {"features": "dinov2"}
    settings = config.resolve(values, DEFAULT.parent, "my.yaml")
    assert "facebook/dinov2-base" in [file.path for file in published_files(settings)]
    values["experiments"]["clear"]["arms"].append("vipo")
    values["overrides"]["arms"]["vipo"] = {"features": "dinov2_large"}
    settings = config.resolve(values, DEFAULT.parent, "my.yaml")
    assert "facebook/dinov2-large" in [file.path for file in published_files(settings)]


def test_a_folder_in_part(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    index = {"weight_map": {"x": "m-1-of-2.safetensors", "y": "m-2-of-2.safetensors"}}
    write_json(tmp_path / "transformer" / "m.safetensors.index.json", index)
    (tmp_path / "transformer" / "m-1-of-2.safetensors").touch()
    assert missing_parts(tmp_path) == ["transformer/m-2-of-2.safetensors"]
    parts = {"transformer": ["d", "T"], "vae": ["d", "V"], "text_encoder_3": [None, None]}
    write_json(tmp_path / "model_index.json", {"_class_name": "FluxPipeline"} | parts)
    assert missing_parts(tmp_path) == ["transformer/m-2-of-2.safetensors", "vae"]
    (tmp_path / "transformer" / "m-2-of-2.safetensors").touch()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").touch()
    assert missing_parts(tmp_path) == []
    assert missing_parts(repository_root() / "bpgo/scenes/weights/policy") == []


def test_pins_are_those_of_the_project() -> None:
    found = {package.name: package for package in packages(TorchBuild("2.13.0+cpu", "cpu"))}
    assert found["torch"].group == "main"
    assert not found["torch"].missing
    assert found["open_clip_torch"].group == "rewards"
    assert found["bitsandbytes"].group == "optional"
    assert "pytest" not in found
    assert not Package("a", "main", "1.0", "1.0+cpu").different
    assert Package("a", "main", "1.0", "1.1").different
    assert not Package("scipy", "main", "", "1.17").different


def screen(found: Examination, capsys: pytest.CaptureFixture[str]) -> str:
    show(report(found))
    return capsys.readouterr().out


def test_the_screen(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [verdict(DEFAULT, GPU), verdict(large, GPU)]
    cluster = replace(GPU, slurm=Slurm({"main": "", "gpu": "gpu:h100:4"}))
    text = screen(Examination(cluster, INSTALLED, OURS, True, verdicts), capsys)
    for words in (
        "NVIDIA H100 80GB HBM3, 85.5 GB, driver 580.65.06",
        "built for cuda 13.0",
        "partitions: main (no GPUs), gpu (gpu:h100:4)",
        "can run after fetching 33.7 GB",
        "FLUX.1 [dev]",
        "(gated)",
        "500 GB free",
    ):
        assert words in text
    assert "\x1b" not in text


def test_exit_code_is_of_the_first_configuration(large: Path) -> None:
    ready, not_ready = verdict(DEFAULT, GPU), verdict(large, GPU)
    assert Examination(GPU, [], [], True, [ready, not_ready]).exit_code == 0
    assert Examination(GPU, [], [], True, [not_ready, ready]).exit_code == 1


def test_examining_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctoring.doctor(DEFAULT, json_wanted=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 0
    assert [entry["summary"] for entry in found["configurations"]] == ["can run"]
    assert found["machine"]["cores"] >= 1
    assert found == json.loads(json.dumps(as_json(examine(DEFAULT)), default=str)) | {
        "machine": found["machine"]
    }


def test_every_experiment_is_judged() -> None:
    names = [verdict.configfile.name for verdict in examine().verdicts]
    assert names[0] == "config.yaml"
    files = {file.name for file in DEFAULT.parent.glob("*.yaml")}
    assert set(names) == files - {"instrument.yaml"}, "which is no configuration"


def test_torch_is_not_imported(large: Path) -> None:
    code = (
        "import sys; from bpgo.tools.doctor.run import doctor; from pathlib import Path;"
        f"doctor(Path({str(large)!r}), False);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers')))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=repository_root(), capture_output=True
    )


def test_a_sum_needs_what_its_parts_need(tmp_path: Path) -> None:
    file = write_configuration(tmp_path, _SCENES | {"path": "bpgo/scenes/weights/policy"})
    values = config.read_yaml(file)
    none = [*INSTALLED, Package("timm", "rewards", "1.0.31", "")]
    for name, parts in (
        ("ours", ["oracle", "oracle_strict"]),
        ("theirs", ["clip_score", "oracle"]),
    ):
        entry = {"kind": "weighted_sum", "title": name, "parts": dict.fromkeys(parts, 1.0)}
        (file.parent / "rewards" / f"{name}.yaml").write_text(yaml.safe_dump(entry))
        values["experiments"]["clear"]["training_reward"] = name
        file.write_text(yaml.safe_dump(values))
        found = verdict(file, installed=none)
        assert ("needs packages: timm" in found.summary) == (name == "theirs")
        assert any("clip" in entry.path for entry in found.files) == (name == "theirs")
