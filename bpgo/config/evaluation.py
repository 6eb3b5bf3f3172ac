"""How policies are judged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from bpgo.config.fields import Count, Guidance, Strict


class EvaluationSettings(Strict):
    """How policies are judged: the evaluation sampler (ODE) on held-out prompts."""

    prompts: Count
    # The first ones, on which every snapshot is scored; left out: all.
    curve_prompts: Count
    samples_per_prompt: Count = 1
    steps: Count
    guidance_scale: Guidance | None = None  # None: as in training
    batch_size: Count = 96
    # Of the clips' files: high plays everywhere; lossless lets judges see what the policy made.
    clip_quality: Literal["high", "lossless"] = "high"

    @model_validator(mode="before")
    @classmethod
    def _all_on_curves(cls, values: Any) -> Any:
        """Snapshots are scored on all prompts where nothing else is said."""
        if isinstance(values, dict) and "prompts" in values:
            return {"curve_prompts": values["prompts"], **values}
        return values
