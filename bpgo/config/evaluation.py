"""How policies are judged, and from what their priors and scales come."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bpgo.config.fields import Count, Few, Guidance, Seed, Strict


class EvaluationSettings(Strict):
    """How policies are judged: the evaluation sampler (ODE) on held-out prompts."""

    prompts: Count  # how many, the first of the evaluation split
    # The first ones, on which every snapshot is scored; left out: all.
    curve_prompts: Count
    samples_per_prompt: Few = 1  # with noise that all policies of a seed share
    steps: Few  # of the evaluation sampler
    guidance_scale: Guidance | None = None  # of the evaluation sampler; None: as in training
    batch_size: Count = 96  # samples in one forward pass
    # Of the clips' files: high plays everywhere; lossless lets judges see what the policy made.
    clip_quality: Literal["high", "lossless"] = "high"

    # Divergence of every kept policy's path from the base policy's, on the first prompts; 0: off.
    divergence_prompts: Annotated[int, Field(ge=0)] = 0
    # Diversity within a prompt of the final and the base policy, on the first prompts; 0: off.
    diversity_prompts: Annotated[int, Field(ge=0)] = 0
    diversity_samples: Annotated[Few, Field(ge=2)] = 8  # of each of those prompts

    @model_validator(mode="before")
    @classmethod
    def _all_on_curves(cls, values: Any) -> Any:
        """Snapshots are scored on all prompts where nothing else is said."""
        if isinstance(values, dict) and "prompts" in values:
            return {"curve_prompts": values["prompts"], **values}
        return values


class CalibrationSettings(Strict):
    """The base policy's rewards on training prompts: the prior's anchor and the reward's scale."""

    prompts: Count  # how many training prompts, the first ones
    # Of the base policy, under the training sampler.
    samples_per_prompt: Annotated[Few, Field(ge=2)]
    # Of the samples' noise, and one for all runs: the anchor is a property of the base policy and
    # of the reward, as published weights are, and all arms and seeds share its samples.
    seed: Seed = 0
