"""What is declared before looking at results: the metric, the contrasts, the margin."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bpgo.config.fields import Count, Many, Name, NonNegative, Number, Seed, Strict


class PrimaryContrast(Strict):
    """The one difference that an experiment is made to decide: `arm` minus `reference`."""

    arm: Name  # the one that is tried
    reference: Name  # an arm, or `base`
    metric: Name  # name of the reward that decides


class AnalysisSettings(Strict):
    """Declared before looking at results."""

    main_metric: Name  # name of the reward that decides
    reference_arm: Name = "grpo"  # the one that others are compared with
    # A difference that lies within +- this does not matter, and arms may be called equivalent.
    # In standard deviations of the base policy's scores within a prompt.
    equivalence_margin: NonNegative = 0.1
    # A run is judged by its mean score over its last so many policies, snapshots and the final one,
    # on all evaluation prompts: one policy's score holds the jitter of the last optimizer steps.
    final_stages: Count = 1
    # Arms whose seeds vary by a measure of their own, as with random rewards; the other arms' seed
    # variance is pooled.
    own_variance: list[Name] = Field(default=[])
    # Curves: all arms of an experiment in a panel, or a family; auto: apart from 11 arms on.
    families: Literal["auto", "apart", "together"] = Field(
        default="auto", exclude_if=lambda families: families == "auto"
    )
    second_run: str | None = None  # another results folder, whose agreement the report shows
    bootstrap_samples: Many = 2000  # how often runs and prompts are drawn again
    confidence: Annotated[Number, Field(gt=0.5, lt=1)] = 0.95  # of every interval
    seed: Seed = 0  # of these draws
