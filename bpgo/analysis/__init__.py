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
STATISTICS = (
    "final",
    "differences",
    "primary",
    "power",
    "curves",
    "gains",
    "training",
    "convergence",
    "convergence_summary",
    "premise",
    "premise_summary",
    "trust",
    "trust_summary",
    "cost",
    "harm",
    "courses",
    "turning",
    "claims",
)
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
