"""MixGRPO's window, solver and several rewards -> `bpgo.core.window`, `dpm_solver`, the arm."""

from __future__ import annotations

from typing import Any

import torch
from golden_case import Case

from baselines.mix_grpo import MixGrpo, MixGrpoSettings
from bpgo.config.library import library
from bpgo.core import dpm_solver
from bpgo.core.dpm_solver import DpmSolver
from bpgo.core.window import WindowSettings
from bpgo.records import GroupRewards
from bpgo.storage.files import repository_root

Answers = dict[str, Any]


def window(case: Case) -> Answers:
    """`GRPOTrainingStates`: read the window, then `update_iteration`, so many times.

    Where a stride meets the schedule's end exactly, the published window is empty for a while; ours
    leaves that out.
    """
    end, iterations = case.arg("max_timesteps"), case.arg("iterations")
    case.descriptive("seeded")
    size, most = case.arg("group_size"), case.arg("iters_per_group")
    settings = WindowSettings(
        size=size,
        strategy=case.arg("sample_strategy"),
        stride=case.arg("prog_overlap_step") if case.arg("prog_overlap") else size,
        iterations=case.arg("max_iters_per_group", None) or most,
        roll_back=case.choice("roll_back", {True: True}),
        last_iterations=case.arg("min_iters_per_group", None) or max(1, most // 4),
        decay_from=13,
        decay_rate=0.1,
    )
    turn = settings.places(end)
    draws = torch.Generator()
    ours = [settings.steps(number + 1, end, draws) for number in range(len(turn))]
    if end % settings.stride == 0:
        ours += [[]] * settings.stay(end, end)
    seen = [ours[number % len(ours)] for number in range(iterations)]
    return {
        "window_start": [steps[0] if steps else -1 for steps in seen],
        "window_len": [len(steps) for steps in seen],
    }


def dpm_steps(case: Case) -> Answers:
    """Three `dpm_step`s of one path.

    `dpmsolver` is the same formula with noise and image in each other's place, that is with
    1 - sigma for sigma. The SDE form, which no arm takes, shares only D with ours.
    """
    case.descriptive("steps", "shift")
    case.choice("solver_type", {"midpoint": None})
    order, stochastic = case.arg("order"), case.arg("sde_solver")
    swapped = case.choice("algorithm", {"dpmsolver++": False, "dpmsolver": True})
    sigmas, latents = case.tensor("sigmas"), case.tensor("x0")
    velocities, noises = case.tensor("model_outputs"), case.tensor("noises")
    if not stochastic:
        case.outside_core("log_prob3", "a deterministic step has no density")
    answers: Answers = {}
    earlier: torch.Tensor | None = None
    solver = DpmSolver()
    for number, index in enumerate(case.arg("indices")):
        levels = sigmas[[max(index - 1, 0), index, index + 1]]
        levels = 1 - levels if swapped else levels
        if not (stochastic or swapped):
            solver = solver if order == 2 else DpmSolver()
            latents = solver.step(velocities[number], latents, *levels[1:])
        else:
            predicted = latents - sigmas[index] * velocities[number]
            aim = predicted
            if earlier is not None and order == 2:
                aim = dpm_solver.extrapolated(predicted, earlier, *levels)
            earlier = predicted
            if stochastic:
                latents, log_prob = _noisy(latents, aim, levels[1], levels[2], noises[number])
                answers["log_prob3"] = log_prob
            else:
                latents = dpm_solver.moved(latents, aim, levels[1], levels[2])
        answers[f"x{number + 1}"] = latents
    return answers


def _noisy(
    latents: torch.Tensor,
    aim: torch.Tensor,
    sigma: torch.Tensor,
    following: torch.Tensor,
    noise: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """SDE-DPM-Solver++: its Gaussian's sample and log-probability."""
    decay = (dpm_solver.half_log_snr(sigma) - dpm_solver.half_log_snr(following)).exp()
    mean = following / sigma * decay * latents + (1 - following) * (1 - decay**2) * aim
    std = following * (1 - decay**2).sqrt()
    moved = mean + std * noise
    log_prob = torch.distributions.Normal(mean, std).log_prob(moved)
    return moved, log_prob.flatten(1).mean(1)


def mix_advantage(case: Case) -> Answers:
    """MixGRPO's inline advantage over several rewards, with weights that were divided before."""
    group, weights = case.arg("num_generations"), case.arg("weights")
    case.descriptive("multi_reward_mix", "use_group")
    several = {name: case.tensor(name).reshape(-1, group).double() for name in weights}
    arm = MixGrpo(_settings(case.arg("trimmed_ratio", 0.0)))
    names = [str(row) for row in range(len(next(iter(several.values()))))]
    total = sum(weights[name] * value for name, value in several.items())
    groups = GroupRewards(total, names, parts=several, part_weights=weights)
    stds = torch.cat([value.std(dim=1) for value in several.values()])
    case.rounding("advantages", torch.cat(list(several.values())), stds)
    found = arm.advantage(groups).advantage * sum(weights.values())
    return {"advantages": found.reshape(-1)}


def _settings(trimmed_ratio: float) -> MixGrpoSettings:
    """The arm's file; the published code clips later."""
    change = {"advantage": {"trimmed_ratio": trimmed_ratio, "clip": None}}
    overrides = {"arms": {"mix_grpo": change}}
    files = library(repository_root() / "config", overrides, "golden")
    return MixGrpoSettings.model_validate(files.read("arms", "mix_grpo", "golden", "arms")[1])
