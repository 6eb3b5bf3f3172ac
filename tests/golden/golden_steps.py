"""Published sampler steps and schedules -> `bpgo.core.sde`."""

from __future__ import annotations

from typing import Any

import torch
from golden_case import Case

from bpgo.core import sde

Answers = dict[str, Any]


def _index(case: Case, batch: int, name: str = "step_index") -> list[int]:
    """The step of each row, from an argument or from the time step."""
    index = case.arg(name, None)
    if index is None:
        distance = (case.tensor("timestep")[:, None] - case.tensor("sigmas")[None] * 1000).abs()
        return [int(row) for row in distance.argmin(dim=1)]
    case.unused_inputs("timestep")
    return [index] * batch if isinstance(index, int) else [int(row) for row in index]


def _sigmas(case: Case, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    sigmas = case.tensor("sigmas")
    return sigmas[rows], sigmas[[row + 1 for row in rows]]


def _next(case: Case, moved: sde.Transition, given: str, noise: str = "noise") -> torch.Tensor:
    """The next latents: given, or sampled with the given noise, or the mean."""
    if case.has(given):
        case.unused_inputs(noise)
        return case.tensor(given)
    return moved.sample(case.tensor(noise)) if case.has(noise) else moved.mean


def flow_grpo_step(case: Case) -> Answers:
    """Flow-GRPO `sde_step_with_logprob` (SD3, FLUX): `std_dev_t` lacks sqrt(h) except for CPS."""
    kernel = case.choice("sde_type", {"sde": "flow", "cps": "cps"}, "sde")
    dtype, deterministic = case.dtype(), case.arg("determistic", False)
    case.arg("return_sqrt_dt", False)
    case.descriptive("steps", "shift")
    velocity, latents = case.tensor("model_output").to(dtype), case.tensor("sample").to(dtype)
    now, following = _sigmas(case, _index(case, len(latents)))
    moved = sde.transition(kernel, velocity, latents, now, following, case.arg("noise_level", 0.7))
    sample = _next(case, moved, "prev_sample").to(dtype)
    if deterministic:
        sample = sde.transition("ode", velocity, latents, now, following).mean
    form = "cps" if kernel == "cps" else "gaussian"
    return {
        "prev_sample": sample,
        "log_prob": sde.log_prob(sample, moved.mean, moved.std, form),  # type: ignore[arg-type]
        "prev_sample_mean": moved.mean,
        "std_dev_t": moved.std if kernel == "cps" else moved.std / moved.sqrt_dt,
        "sqrt_dt": moved.sqrt_dt,
    }


def flow_grpo_wan_step(case: Case) -> Answers:
    """Flow-GRPO's Wan step: no noise level; the std comes full or apart from sqrt(h)."""
    case.descriptive("steps", "shift", "flow_shift")
    velocity, latents = case.tensor("model_output"), case.tensor("sample")
    now, following = _sigmas(case, _index(case, len(latents)))
    largest = case.tensor("sigmas")[1]
    moved = sde.transition("wan", velocity, latents, now, following, sigma_max=largest)
    sample = _next(case, moved, "prev_sample")
    if case.arg("determistic", False):
        sample = sde.transition("ode", velocity, latents, now, following).mean
    apart = case.arg("return_dt_and_std_dev_t", False)
    return {
        "prev_sample": sample,
        "log_prob": sde.log_prob(sample, moved.mean, moved.std),
        "prev_sample_mean": moved.mean,
        "std": moved.std / moved.sqrt_dt if apart else moved.std,
        "sqrt_dt": moved.sqrt_dt,
    }


def dance_step(case: Case) -> Answers:
    """DanceGRPO `flux_step`, and MixGRPO's copy without the density's two logarithms."""
    case.descriptive("steps", "shift", "dtype")
    velocity, latents = case.tensor("model_output"), case.tensor("latents")
    now, following = _sigmas(case, _index(case, len(latents), "index"))
    moved = sde.transition(
        "dance",
        velocity,
        latents,
        now,
        following,
        case.arg("eta"),
        score_term=case.arg("sde_solver", True),
    )
    answers = {"pred_original": sde.transition("ode", velocity, latents, now, 0.0).mean}
    if not case.arg("grpo", True):
        case.unused_inputs("prev_sample")
        return answers | {"prev_sample_mean": moved.mean, "prev_sample": moved.mean}
    sample = _next(case, moved, "prev_sample")
    form = "exponent" if "MixGRPO" in case.repo else "gaussian"
    log_prob = sde.log_prob(sample, moved.mean, moved.std, form)  # type: ignore[arg-type]
    return answers | {"prev_sample": sample, "log_prob": log_prob, "prev_sample_mean": moved.mean}


def mix_flow_step(case: Case) -> Answers:
    """MixGRPO `flow_grpo_step`: deterministic replaces the sample, not the density."""
    case.descriptive("steps", "shift", "dtype", "sde_solver", "grpo")
    velocity, latents = case.tensor("model_output"), case.tensor("latents")
    now, following = _sigmas(case, _index(case, len(latents), "index"))
    moved = sde.transition("flow", velocity, latents, now, following, case.arg("eta"))
    sample = _next(case, moved, "prev_sample")
    if case.arg("determistic", False):
        sample = sde.transition("ode", velocity, latents, now, following).mean
    return {
        "prev_sample": sample,
        "pred_original": sde.transition("ode", velocity, latents, now, 0.0).mean,
        "log_prob": sde.log_prob(sample, moved.mean, moved.std),
        "prev_sample_mean": moved.mean,
        "kernel_std": moved.std[:1],
    }


def branch_step(case: Case) -> Answers:
    """BranchGRPO's step: branches draw louder noise than the density they are scored with."""
    case.descriptive("steps", "shift", "dtype")
    velocity, latents = case.tensor("model_output"), case.tensor("latents")
    now, following = _sigmas(case, _index(case, len(latents), "index"))
    moved = sde.transition(
        "dance",
        velocity,
        latents,
        now,
        following,
        case.arg("eta"),
        score_term=case.arg("sde_solver", True),
    )
    case.arg("num_splits", 1)
    original = sde.transition("ode", velocity, latents, now, 0.0).mean
    if case.has("prev_sample"):
        samples = [case.tensor("prev_sample")]
    else:
        scale = case.arg("split_noise_scale", 1.0)
        samples = [moved.sample(scale * noise) for noise in case.tensor("noises")]
    scores = [sde.log_prob(sample, moved.mean, moved.std) for sample in samples]
    return {
        "prev_sample": torch.cat(samples),
        "pred_original": torch.cat([original for _ in samples]),
        "log_prob": torch.cat(scores),
    }


def flow_factory_step(case: Case) -> Answers:
    """Flow-Factory's scheduler: `std_dev_t` lacks sqrt(h) except for CPS."""
    names = {"Flow-SDE": "flow", "Dance-SDE": "dance", "CPS": "cps", "ODE": "ode"}
    kernel = case.choice("dynamics_type", names, "Flow-SDE")
    velocity, latents = case.tensor("noise_pred"), case.tensor("latents")
    now, following = _sigmas(case, _index(case, len(latents)))
    moved = sde.transition(kernel, velocity, latents, now, following, case.arg("noise_level", 0.7))
    sample = _next(case, moved, "next_latents")
    answers = {
        "next_latents": sample,
        "next_latents_mean": moved.mean,
        "std_dev_t": moved.std if kernel == "cps" else moved.std / moved.sqrt_dt,
        "dt": -moved.sqrt_dt.square(),
    }
    if kernel == "ode":
        case.outside_core("log_prob", "a deterministic step has no density")
        return answers
    form = "cps" if kernel == "cps" else "gaussian"
    log_prob = sde.log_prob(sample, moved.mean, moved.std, form)  # type: ignore[arg-type]
    return answers | {"log_prob": log_prob}


def verl_omni_step(case: Case) -> Answers:
    """verl-omni's scheduler: the std is full except for `sde`."""
    names = {"sde": "flow", "dance_sde": "dance", "cps": "cps"}
    kernel = case.choice("sde_type", names, "sde")
    velocity, latents = case.tensor("model_output"), case.tensor("sample")
    now, following = _sigmas(case, _index(case, len(latents)))
    moved = sde.transition(kernel, velocity, latents, now, following, case.arg("noise_level", 0.7))
    case.arg("return_sqrt_dt", False)
    sample = _next(case, moved, "prev_sample")
    form = "gaussian" if case.arg("include_logprob_normalizer", True) else "exponent"
    form = "cps" if kernel == "cps" else form
    return {
        "prev_sample": sample,
        "log_prob": sde.log_prob(sample, moved.mean, moved.std, form),  # type: ignore[arg-type]
        "prev_sample_mean": moved.mean,
        "std_dev_t": moved.std / moved.sqrt_dt if kernel == "flow" else moved.std,
        "sqrt_dt": moved.sqrt_dt,
    }


def teleboost_step(case: Case) -> Answers:
    """TeleBoost `compute_sde_step[form]`: the std is full."""
    form = case.function.split("[")[-1].rstrip("]")
    form = case.arg("sigma_form", case.arg("form", form))
    kernel = {"dancegrpo": "dance", "flow_grpo": "flow"}[form]
    latents = case.tensor("latents")
    case.unused_inputs("pred_original_sample")
    moved = sde.transition(
        kernel,
        case.tensor("model_output"),
        latents,
        case.tensor("sigma"),
        case.tensor("sigma_next"),
        case.arg("eta"),
    )
    return {
        "prev_sample_mean": moved.mean,
        "kernel_std": moved.std[:1],
        "sqrt_dt": moved.sqrt_dt[:1],
    }


def ddpo_step(case: Case) -> Answers:
    """DDPO's DDIM step of Stable Diffusion, as our kernel of a flow.

    x = a x0 + b e is (a + b) times a flow's latent at noise level b / (a + b), so a mean over
    numbers of log p differs by log(a + b) of the level that is reached.
    """
    case.choice("schedule", {"SD1.4/1.5 scaled_linear, steps_offset 1, set_alpha_to_one False": 0})
    case.descriptive("index")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    signals = (1 - betas).cumprod(0)
    time = case.tensor("timestep")
    following = (time - 1000 // case.arg("steps")).clamp(min=0)

    def level(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        signal, noise = signals[at].sqrt(), (1 - signals[at]).sqrt()
        return signal, noise, signal + noise

    (signal, noise, size), (_, next_noise, next_size) = level(time), level(following)
    shape = (-1, 1, 1, 1)
    latents, predicted = case.tensor("sample").double(), case.tensor("model_output").double()
    image = (latents - noise.view(shape) * predicted) / signal.view(shape)
    moved = sde.transition(
        "ddim",
        predicted - image,
        latents / size.view(shape),
        noise / size,
        next_noise / next_size,
        case.arg("eta"),
    )
    reached = case.tensor("prev_sample").double() / next_size.view(shape)
    return {"log_prob": sde.log_prob(reached, moved.mean, moved.std) - next_size.log()}


def dance_schedule(case: Case) -> Answers:
    """DanceGRPO `sd3_time_shift` on evenly spaced times."""
    case.descriptive("base")
    case.outside_core("timestep_int", "DanceGRPO quantises the time it shows the model; we do not")
    return {"sigmas": sde.flow_sigmas(case.arg("steps"), case.arg("shift"))}


def diffusers_schedule(case: Case) -> Answers:
    """`set_timesteps` of diffusers' flow schedulers, as SD3, FLUX and Wan pipelines call it."""
    steps = case.arg("num_inference_steps")
    train_steps = case.arg("num_train_timesteps", 1000)
    if "unipc" in case.file:
        case.choice("use_flow_sigmas", {True: None})
        case.choice("prediction_type", {"flow_prediction": None}, "flow_prediction")
        case.outside_core("timesteps", "UniPC rounds its time steps to whole numbers; we do not")
        return {"sigmas": sde.unipc_sigmas(steps, case.arg("flow_shift", 1.0), train_steps)}
    tokens, mu = case.arg("image_seq_len", None), case.arg("mu", None)
    even = case.choice("sigmas", {"linspace(1,1/n,n)": True, None: False}, None)
    dynamic = case.choice("use_dynamic_shifting", {True: True, False: False}, mu is not None)
    if dynamic:
        mu = sde.flux_mu(tokens) if mu is None else mu
        assert tokens is None or abs(sde.flux_mu(tokens) - mu) < 1e-9
        case.choice("time_shift_type", {"exponential": None}, "exponential")
        sigmas = sde.flux_sigmas(steps, mu)
    else:
        shift = case.arg("shift", 1.0)
        sigmas = sde.flow_sigmas(steps, shift) if even else sde.sd3_sigmas(steps, shift)
    return {"sigmas": sigmas, "timesteps": sigmas[:-1] * train_steps}
