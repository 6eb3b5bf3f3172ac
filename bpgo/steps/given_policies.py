"""Policies that were trained elsewhere, as they are loaded beside those of arms."""

from __future__ import annotations

from bpgo.config.given_files import files_of
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.storage.files import sha256


def loaded_with(settings: Settings, arm: str) -> Settings:
    """The settings with which policies of an arm are loaded, or a given policy.

    A given LoRA brings its own rank, alpha and layers; given weights are loaded as all weights,
    whatever the experiment trains.

    Raises:
        UserError: a file of a given policy is not there any more, or is not what it was when the
            settings were resolved.
    """
    if arm not in settings.policies:
        return settings.of_arm(arm)
    policy = settings.policies[arm]
    for file, digest in files_of(policy).items():
        if not file.is_file():
            raise UserError(f"{file}: no such file; it is of the policy '{arm}'")
        if sha256(file) != digest:
            raise UserError(
                f"{file}: is not what it was when this call began (policy '{arm}'); give the same"
                " command again, and it is sampled as it is now"
            )
    model, kind = settings.model, "full"
    if policy.adapter is not None:
        model, kind = model.model_copy(update={"lora": policy.adapter}), "lora"
    training = settings.training.model_copy(update={"parameters": kind})
    return settings.model_copy(update={"training": training, "model": model})
