"""Published function -> our code. First match wins; a case's id plays no part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import golden_advantages as advantages
import golden_duels as judged
import golden_forward as forward
import golden_losses as losses
import golden_single_step as single_step
import golden_sites as sites
import golden_steps as steps
import golden_trees as trees
import golden_trust as trust
import golden_windows as windows
from golden_case import Case

Adapter = Callable[[Case], dict[str, Any]]

# (part of the repository, part of the file, start of the function) -> adapter
ADAPTERS: list[tuple[str, str, str, Adapter]] = [
    ("TeleBoost", "tempflow", "compute_timestep_weights", single_step.teleboost_tempflow_weights),
    ("TempFlow", "", "sde_step_with_logprob", single_step.tempflow_weights),
    ("TempFlow", "", "main (inline loss", single_step.tempflow_loss),
    ("Flash-GRPO", "scripts/", "compute_log_prob", single_step.flash_loss),
    ("Flash-GRPO", "", "sde_step_with_logprob", single_step.flash_step),
    ("flow_grpo", "wan_pipeline", "sde_step_with_logprob", steps.flow_grpo_wan_step),
    ("flow_grpo", "", "sde_step_with_logprob", steps.flow_grpo_step),
    ("flow_grpo", "stat_tracking", "PerPromptStatTracker", advantages.flow_grpo_tracker),
    ("flow_grpo", "scripts/train_", "main (inline loss", losses.flow_grpo_loss),
    ("Flow-Factory", "", "GRPOGuardTrainer", losses.flow_factory_guard_ratio),
    ("verl-omni", "", "GRPOGuardLoss", losses.verl_omni_guard_loss),
    ("TeleBoost", "grpo_guard", "compute_grad_reweight_delta", losses.teleboost_guard_weight),
    ("DiffusionNFT", "train_nft", "main (inline loss", forward.diffusion_nft_loss),
    ("DiffusionNFT", "train_nft", "return_decay", forward.diffusion_nft_decay),
    ("advantage_weighted", "", "compute_log_prob_awm + main (inline loss", forward.awm_loss),
    ("advantage_weighted", "", "compute_log_prob_awm", forward.awm_log_prob),
    ("DGPO", "", "main (inline loss block)", forward.dgpo_loss),
    ("DGPO", "", "main (inline) + EMAModuleWrapper", forward.dgpo_reference),
    ("Flow-Factory", "", "DGPOTrainer", forward.flow_factory_dgpo_loss),
    ("Flow-Factory", "", "CRDTrainer", forward.crd_loss),
    ("Flow-Factory", "trainers/crd", "compute_decay", forward.crd_decay),
    ("verl-omni", "", "DistillKLLoss", forward.verl_omni_distillation),
    ("flow_grpo", "ema", "EMAModuleWrapper", losses.ema),
    ("UniRL", "", "FlowDPPO._compute_sigma_t + _flowdppo", losses.flow_dppo_mask),
    ("UniRL", "", "FlowSDEStrategy.step + compute_log_prob", losses.flow_dppo_step),
    ("UniRL", "", "FlowDPPO._compute_sigma_t", losses.flow_dppo_sigma),
    ("DanceGRPO", "", "flux_step", steps.dance_step),
    ("DanceGRPO", "", "sd3_time_shift", steps.dance_schedule),
    ("MixGRPO", "", "sd3_time_shift", steps.dance_schedule),
    ("MixGRPO", "", "dance_grpo_step", steps.dance_step),
    ("MixGRPO", "", "flow_grpo_step", steps.mix_flow_step),
    ("MixGRPO", "", "dpm_step", windows.dpm_steps),
    ("MixGRPO", "", "GRPOTrainingStates", windows.window),
    ("BranchGRPO", "", "flux_step_with_split", steps.branch_step),
    ("BranchGRPO", "", "compute_node_rewards", trees.tree),
    ("Flow-Factory", "", "FlowMatchEulerDiscreteSDEScheduler.step", steps.flow_factory_step),
    ("Flow-Factory", "", "AdvantageProcessor.compute", advantages.flow_factory_advantage),
    ("verl-omni", "", "FlowMatchSDEDiscreteScheduler", steps.verl_omni_step),
    ("verl-omni", "", "compute_flow_grpo_outcome", advantages.verl_omni_advantage),
    ("verl-omni", "", "FlowGRPOLoss", losses.verl_omni_loss),
    ("TeleBoost", "", "compute_sde_step", steps.teleboost_step),
    ("TeleBoost", "", "per_prompt_zscore_advantage", advantages.teleboost_advantage),
    ("TeleBoost", "", "binary_rerange_group_rewards", advantages.released_crt),
    ("TeleBoost", "", "bayes_reliability_weight", advantages.released_ras),
    ("TeleBoost", "", "BGPOMixin", advantages.released_bpgo),
    ("GARDO", "", "main (inline block) + RiskCompensator", trust.gardo_gate),
    ("GARDO", "", "RiskCompensator.update", trust.gardo_controller),
    ("GARDO", "", "sde_step_with_logprob + main", trust.gardo_loss),
    ("Pref-GRPO", "", "_pairwise_win_rate (flex)", judged.flex_blend),
    ("Pref-GRPO", "", "_pairwise_win_rate", judged.win_rate),
    ("TeleBoost", "algorithms/vipo", "_compute_top3_pca", sites.vipo_weights),
    ("TeleBoost", "wan/vipo", "VIPOMixin", sites.vipo_loss),
    ("trl", "grpo_trainer", "GRPOTrainer._generate", advantages.trl_gdpo),
    ("2511.18919", "Eq. 2", "RAS", advantages.paper_ras),
    ("2511.18919", "Eq. 4", "CRT", advantages.paper_crt),
    ("ddpo", "", "ddim_step_with_logprob", steps.ddpo_step),
    ("ddpo", "", "PerPromptStatTracker", advantages.ddpo_tracker),
    ("diffusers", "", "set_timesteps", steps.diffusers_schedule),
]

# (part of the repository, part of the file, start of the function) -> why nothing here answers it
NO_COUNTERPART = [
    (
        "GARDO",
        "stat_tracking",
        "PerPromptStatTracker",
        "GARDO's diversity advantage is no part of the trust rule `gardo`, which is its gate alone:"
        " a bonus for samples unlike the others of their group changes what is rewarded, not how"
        " far a reward is trusted",
    ),
    (
        "FastVideo",
        "rvm",
        "standardize_group_rewards",
        "RVM is an unmerged proposal, and no arm here: signed regression of velocities without an"
        " old policy",
    ),
]


def find(case: Case) -> Adapter | str:
    """The adapter of a case, or why there is none."""
    # DanceGRPO and MixGRPO: one function, two halves.
    if "train_one_step" in case.function and "Branch" not in case.repo:
        if case.has("new_log_prob"):
            return losses.dance_loss
        several = "weights" in case.entry["args"]
        return windows.mix_advantage if several else advantages.dance_advantage
    for repo, file, function, adapter in ADAPTERS:
        if repo in case.repo and file in case.file and case.function.startswith(function):
            return adapter
    for repo, file, function, why in NO_COUNTERPART:
        if repo in case.repo and file in case.file and case.function.startswith(function):
            return why
    return f"unknown function {case.function} of {case.repo}"
