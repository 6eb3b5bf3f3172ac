"""Two processes (gloo, CPU) train what one process trains."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_of_several import reward_of
from safetensors.torch import load_file
from shipped_arms import values_of
from tiny_world import make_trainer, redness, trained, weights
from torch import Tensor

from bpgo.errors import RunInterruptedError, UserError
from bpgo.records import Samples
from bpgo.run.processes import Processes, check_parts
from bpgo.run.progress import read_lines
from bpgo.storage.files import read_json

SCRIPT = Path(__file__).parents[2] / "fixtures" / "one_of_several.py"
LORA = {"model": {"lora": {"rank": 2}}}
PLAIN = {"machine": {"shard_weights": False}}
# AdamW divides each gradient by its own size. An epsilon far above the rounding of sums keeps it
# from making a step of the gradients that are nothing but rounding.
EPSILON = 1e-5
GROUPS = {"rollout": {"prompts_per_iteration": 4}, "training": {"split": "groups"}, "flat": True}
NFT: dict[str, Any] = values_of("diffusion_nft")
BRANCH: dict[str, Any] = {
    "algorithm": "branch_grpo",
    **dict.fromkeys(("trained_fraction", "step_selection")),
    "tree": {"split_steps": [0, 2], "children": [2, 2], "noise_scale": 1.0},
    "node_rewards": "probability",
    "pruning": {"steps": [], "slide_every": None, "slide_to": 0, "width": "none", "share": 0.5},
}
# Statistics of the whole batch or a group: a tracker's, of parts, of features, of the group.
DDPO = values_of("ddpo", tracker={"buffer_size": 4, "min_count": 4})
DGPO, VIPO, GDPO = (values_of(name) for name in ("dgpo", "vipo", "gdpo"))
CASES: dict[str, dict[str, Any]] = {
    "full, grpo, dropped groups": {"flat": True, **PLAIN},
    "full, kl": {"arm": "flow_grpo", "rollout": {"batch_size": 3}, **PLAIN},
    "lora, bpgo": {**LORA, "arm": "bpgo", "training": {"parameters": "lora"}},
    "lora, kl, averaged": {
        **LORA,
        "arm": "flow_grpo",
        "training": {"parameters": "lora", "ema_decay": 0.5, "ema_every": 2},
    },
    "sharded, grpo, dropped groups": {"flat": True},
    "sharded, bpgo, averaged": {
        "arm": "bpgo",
        "training": {"ema_decay": 0.5, "ema_every": 2, "weight_decay": 0.01},
    },
    "sharded, kl": {"arm": "flow_grpo", "rollout": {"batch_size": 3}},
    "full, whole groups": {**GROUPS, **PLAIN},
    "sharded, whole groups": GROUPS,
    "sharded, steps": {"training": {"split": "steps"}},
    "full, a tree": {"arm_changes": BRANCH, **PLAIN},
    "sharded, a tree": {"arm_changes": BRANCH},
    "full, a further policy": {"arm_values": NFT, **PLAIN},
    "sharded, a further policy": {"arm_values": NFT},
    "full, a tracker": {"arm_values": DDPO, **PLAIN},
    "full, weights of a group": {
        "arm_values": DGPO,
        "rollout": {"prompts_per_iteration": 4},
        **PLAIN,
    },
    "full, parts of a reward": {"arm_values": GDPO, "summed": True, **PLAIN},
    "full, sites": {"arm_values": VIPO, **PLAIN},
}
for case in CASES.values():
    case["training"] = {"epsilon": EPSILON, **case.get("training", {})}
FAULTS: dict[str, dict[str, Any]] = {
    "nan": {"fail": ["nan", 1], **PLAIN},
    "crash": {"fail": ["crash", 1], **PLAIN},
    "signal": {"fail": ["signal", 1]},
}
RESUMED: dict[str, dict[str, Any]] = {"resumed, full": PLAIN, "resumed, sharded": {}}
TIMES = {"seconds", "rollout_seconds", "reward_seconds", "update_seconds"}
PASSES = {"rollout_passes", "trained_passes", "other_passes"}  # sharded weights share fewer


def two_processes(folder: Path, tiny: Path, cases: dict[str, Any]) -> list[dict[str, str]]:
    """Train the cases on two processes; what each process says of each case."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps({"policy": str(tiny), "cases": cases}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {
            **os.environ,
            **{name: str(value) for name, value in place.items()},
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(SCRIPT), str(folder), str(folder / "cases.json")]
        log = (folder / f"rank_{rank}.log").open("w")
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    for process in started:
        process.wait(timeout=240)
    logs = [(folder / f"rank_{rank}.log").read_text() for rank in range(2)]
    assert [process.returncode for process in started] == [0, 0], "\n".join(logs)
    return [read_json(folder / f"rank_{rank}.json") for rank in range(2)]


@pytest.fixture(scope="module")
def pair(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases on two processes; those to resume were stopped in iteration 2 of one process."""
    folder = tmp_path_factory.mktemp("pair")
    for name in RESUMED:
        with pytest.raises(RunInterruptedError):
            trained(tiny_folder, folder / name, reward=stopping_at(2))
    cases = CASES | FAULTS | RESUMED
    said = two_processes(folder, tiny_folder, cases)
    for name in CASES | RESUMED:
        assert [each[name] for each in said] == ["done", "done"]
    return folder


def stopping_at(call: int) -> Callable[[Samples], Tensor]:
    """`redness` that asks the process to stop at its n-th call."""
    calls = [0]

    def reward(samples: Samples) -> Tensor:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return redness(samples)

    return reward


def state(output: Path, name: str) -> dict[str, Tensor]:
    last = max((output / "state").iterdir())
    return load_file(last / f"{name}.safetensors")


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Equal but for the rounding of sums over 4 iterations of 2 optimizer steps."""
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_trains(
    case: str, pair: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    options = dict(CASES[case])
    flat = options.get("flat", False)
    one = trained(tiny_folder, tmp_path, reward=reward_of(options), **options)
    one.save_policy(tmp_path / "policy")
    two = pair / case
    start = weights(make_trainer(tiny_folder, tmp_path / "start", **options))
    end = state(two, "weights")
    moved = max(float((end[name] - start[name]).abs().max()) for name in start)
    assert moved > 1e-3  # far more than the tolerance
    for name in ("weights", "optimizer", "ema"):
        assert_close(state(two, name), state(tmp_path, name))
    for ours, theirs in zip(
        read_lines(two / "metrics.jsonl"), read_lines(tmp_path / "metrics.jsonl"), strict=True
    ):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - TIMES - (PASSES if case.startswith("sharded") else set()):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3, abs=2e-6), name
        # Exactly 1, but where the rows of a float32 pass were drawn in passes of other sizes.
        assert ours["ratio_deviation"] <= (1e-6 if case == "full, kl" else 0.0)
    for ours, theirs in zip(
        read_lines(two / "rollouts.jsonl"), read_lines(tmp_path / "rollouts.jsonl"), strict=True
    ):
        assert ours["prompt_id"] == theirs["prompt_id"]
        torch.testing.assert_close(
            torch.tensor(ours["reward"]), torch.tensor(theirs["reward"]), rtol=1e-4, atol=1e-6
        )
    files = [policy_files(root) for root in (two, tmp_path)]
    assert files[0] == files[1]
    for file in files[0]:
        assert_close(load_file(two / file), load_file(tmp_path / file))
    for config in tmp_path.rglob("transformer/config.json"):
        assert read_json(two / config.relative_to(tmp_path)) == read_json(config)
    if flat:
        dropped = [entry["groups_dropped"] for entry in read_lines(two / "metrics.jsonl")]
        groups = one.settings.rollout.prompts_per_iteration
        assert any(0 < count < groups for count in dropped)
    if case.endswith("whole groups"):  # some optimizer step has nothing to train on any process
        assert 4 < float(state(two, "optimizer")["0.step"]) < 8


def policy_files(output: Path) -> list[Path]:
    """The final policy's files and the snapshots', relative to the run's folder."""
    found = [path.relative_to(output) for path in output.rglob("*.safetensors")]
    return sorted(path for path in found if path.parts[0] != "state")


@pytest.mark.parametrize("case", RESUMED)
def test_two_processes_go_on_where_one_stopped(
    case: str, pair: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    trained(tiny_folder, tmp_path)
    assert [entry["iteration"] for entry in read_lines(pair / case / "metrics.jsonl")] == [
        1,
        2,
        3,
        4,
    ]
    for name in ("weights", "optimizer"):
        assert_close(state(pair / case, name), state(tmp_path, name))


def test_a_signal_to_one_process_stops_both_and_one_goes_on(
    pair: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    said = [read_json(pair / f"rank_{rank}.json")["signal"] for rank in range(2)]
    assert said[0].startswith("RunInterruptedError 75: stopped after iteration 2 of 4")
    assert said[1] == "StoppedElsewhereError 75: process 0 of 2 stopped"
    assert max((pair / "signal" / "state").iterdir()).name == "iteration_000002"
    trained(tiny_folder, pair / "signal")
    trained(tiny_folder, tmp_path)
    assert_close(state(pair / "signal", "weights"), state(tmp_path, "weights"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", "NonFiniteError 3: iteration 2: the training reward of prompt"),
        ("crash", "ZeroDivisionError 1: a bug"),
    ],
)
def test_a_fault_of_one_process_stops_both_and_is_told_once(
    fault: str, message: str, pair: Path
) -> None:
    said = [read_json(pair / f"rank_{rank}.json")[fault] for rank in range(2)]
    code = message.partition(":")[0].partition(" ")[2]  # the fault's own
    assert said[0] == f"StoppedElsewhereError {code}: process 1 of 2 stopped"
    assert said[1].startswith(message)
    assert [entry["iteration"] for entry in read_lines(pair / fault / "metrics.jsonl")] == [1]


def test_groups_must_be_shared_out_evenly() -> None:
    group = Processes()
    group.count = 3
    check_parts(6, group)
    with pytest.raises(UserError, match=r"rollout\.prompts_per_iteration: 8 .* 3 processes"):
        check_parts(8, group)


def test_one_process_has_everything() -> None:
    assert Processes().part(7) == slice(0, 7)
