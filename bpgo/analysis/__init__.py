"""From scores to statistics, tables, figures and the report. Nothing here imports torch.

collect     all runs' files            -> collected/*.parquet, runs.json
statistics  collected + configuration  -> statistics/*.parquet
tables      statistics                 -> tables/*.{csv,md,tex}
figures     statistics                 -> figures/*.{pdf,png}
grids       samples                    -> grids/*.png, and *.webp of clips
report      all of these               -> index.html
"""

from __future__ import annotations

COLLECTED = ("scores", "metrics", "groups", "calibration", "harm")
SINCE = ("harm",)  # files that collections of earlier versions do not have

_LIMITS = ("low", "high", "simultaneous_low", "simultaneous_high")
_CHECKS = ("check_low", "check_high", "detectable", "detectable_alone", "iqm")
_SIZED = ("difference", *_LIMITS, *_CHECKS)
_INTERVAL = ("mean", "low", "high")
_ARM = ("experiment", "arm", "reward", "role", "main")
_COUNTS = ("n_seeds", "n_prompts", "n_samples")
_DIFFERENCE = (
    *(*_ARM, "reference", *_COUNTS, *_SIZED, *(f"{name}_sd" for name in _SIZED)),
    *("df", "comparisons", "p_value", "p_simultaneous"),
    *("improvement", "improvement_low", "improvement_high"),
    *("seeds_better", "significant", "verdict"),
)
# Each with its columns, which it has without rows too; docs/columns.md says what they are.
STATISTICS: dict[str, tuple[str, ...]] = {
    "final": (*_ARM, *_COUNTS, "iqm", "seed_sd", "base_sd", *_INTERVAL),
    "differences": _DIFFERENCE,
    "primary": _DIFFERENCE,
    "power": (
        *("experiment", "reward", "role", "contrast", "n_seeds", "n_arms", "variance", "df"),
        *("prompt_variance", "effect", "visible", "seeds", "seeds_cautious", "seeds_table"),
        *("seeds_two_arms", "merit"),
    ),
    "curves": (
        *(*_ARM, "iteration", *_COUNTS, *_INTERVAL, "gain", "gain_low", "gain_high"),
        *("gain_sd", "gain_sd_low", "gain_sd_high"),
    ),
    "gains": (*_ARM, "seed", "iteration", "prompts", "gain", "gain_sd", "collapsed"),
    "training": (
        *("experiment", "arm", "iteration", "n_seeds", "gain", "smooth", "low", "high"),
        "adjusted",
    ),
    "convergence": ("experiment", "arm", "seed", "measure", "value", "reached"),
    "convergence_summary": (
        *("experiment", "arm", "measure", "n_seeds", *_INTERVAL, "iqm", "reached", "difference"),
        *("difference_low", "difference_high", "simultaneous_low", "simultaneous_high", "df"),
    ),
    "premise": (
        *("experiment", "reward", "role", "measure", "by", "bin", "centre", "n_groups"),
        *_INTERVAL,
    ),
    "premise_summary": (
        *("experiment", "reward", "role", "measure", "by", "n_groups", "n_undefined"),
        *_INTERVAL,
    ),
    "trust": (
        *("experiment", "arm", "measure", "bin", "weight", "n_seeds", "n_groups"),
        *_INTERVAL,
    ),
    "trust_summary": (
        *("experiment", "arm", "measure", "reads", "n_seeds", "n_groups"),
        *_INTERVAL,
    ),
    "cost": (
        *("experiment", "arm", "seed", "iterations", "seconds", "rollout_seconds"),
        *("reward_seconds", "update_seconds", "total_seconds"),
        *("rollout_passes", "trained_passes", "other_passes"),
    ),
    "harm": (
        *("experiment", "arm", "measure", "n_seeds", "n_runs", *_INTERVAL),
        *(f"to_reference_{name}" for name in ("difference", *_LIMITS)),
        *(f"to_base_{name}" for name in ("difference", *_LIMITS)),
    ),
    "courses": (
        *("experiment", "arm", "iteration", "n_seeds", "divergence"),
        *("proxy", "proxy_low", "proxy_high", "gold", "gold_low", "gold_high"),
    ),
    "turning": (
        *("experiment", "arm", "n_seeds", "iteration", "iteration_low", "iteration_high"),
        *("divergence", "fall", "fall_low", "fall_high", "rise", "rise_low", "rise_high"),
        "turned",
    ),
    "claims": (
        *("experiment", "claim", "statement", "quantity", "expected", "estimate", "low", "high"),
        *("unit", "n_seeds", "n_groups", "any_of", "detectable", "verdict"),
        *("claim_p", "claim_verdict"),
    ),
}
TABLES = (
    "primary",
    "main",
    "differences",
    "parts",
    "sweep",
    "premise",
    "convergence",
    "cost",
    "harm",
    "power",
    "paper",
)
FIGURES = (
    "training_reward",
    "curves",
    "overoptimization",
    "path",
    "harm",
    "differences",
    "trust",
    "premise",
    "sweep",
)
