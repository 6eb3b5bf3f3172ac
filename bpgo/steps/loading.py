"""What several commands load: the policy, prompt embeddings, rewards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpgo import registry, rewards
from bpgo.config.given import GIVEN
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.core.arm import Arm
from bpgo.errors import UserError, suggest
from bpgo.records import Calibration

if TYPE_CHECKING:
    from bpgo.interfaces import Features, Policy, Reward


def prepare_process(settings: Settings, threads: int) -> str:
    """Set torch's threads and determinism; the device's name (`cuda` where there is one).

    One thread a job by default: two runs side by side are faster than one run with two threads.
    """
    import torch

    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Filling fresh memory with NaN costs time and changes no result.
    # Like torch.use_deterministic_algorithms, which would import the compiler: two seconds.
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # cuDNN's attention, which torch prefers on an H100, gives wrong gradients at some shapes
    # (pytorch/pytorch#196678, huggingface/trl#7181); flash attention takes its place.
    torch.backends.cuda.enable_cudnn_sdp(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.training.parameters == "full":
        from bpgo.run.lean_import import import_lean

        import_lean(settings.model.kind)
    return device


def load_policy(settings: Settings, device: str, seed: int) -> Policy:
    """The base policy, with the adapter that a run with `seed` starts from, where it has one."""
    kind = registry.load_model_class(settings.model.kind)
    policy: Policy = kind(settings.model, settings.training.parameters, device, seed=seed)
    return policy


def load_decoder(settings: Settings, device: str) -> Policy:
    """The base policy without its transformer's weights: it can `decode`, and nothing else."""
    kind = registry.load_model_class(settings.model.kind)
    policy: Policy = kind(settings.model, settings.training.parameters, device, decodes_only=True)
    return policy


def load_arm(settings: Settings, name: str) -> Arm:
    """An arm, as it is before the first iteration."""
    chosen: Any = settings.arms[name]
    arm: Arm = registry.load_arm_class(chosen.algorithm)(chosen)
    return arm


def load_rewards(
    settings: Settings, names: list[str], device: str, calibration: Calibration | None = None
) -> dict[str, Reward]:
    """Rewards by name; `calibration` is needed for sums of standardized rewards."""
    return rewards.load_rewards(settings.rewards, names, device, calibration)


def load_features(settings: Settings, device: str) -> Features:
    """The configuration's feature extractor, which must be there."""
    chosen: Any = settings.features
    found: Features = registry.load_features_class(chosen.kind)(chosen, device)
    return found


def embedding_cache(path: Path) -> Path:
    """Where prompt embeddings are kept: `embeddings/` beside the prompts' folder."""
    return Path(path).resolve().parent.parent / "embeddings"


def check_experiment(settings: Settings, experiment: str) -> None:
    """`UserError` for an experiment that the configuration does not have."""
    if experiment not in settings.experiments:
        raise UserError(
            f"--experiment: '{experiment}' is unknown.{suggest(experiment, settings.experiments)}"
            f" Known: {', '.join(settings.experiments)}"
        )


def check_run(settings: Settings, run: Run) -> None:
    """`UserError` for an experiment or arm that the configuration does not have."""
    if run.experiment != GIVEN or run.arm not in settings.policies:
        check_experiment(settings, run.experiment)
    known = {each.arm for each in settings.runs() + settings.base_runs() + settings.given_runs()}
    if run.arm not in known:
        raise UserError(
            f"--arm: '{run.arm}' is unknown.{suggest(run.arm, known)}"
            f" Known: {', '.join(sorted(known))}"
        )
