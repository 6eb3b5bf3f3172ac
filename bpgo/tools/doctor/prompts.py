"""How many of a configuration's prompts its rewards would read only in part."""

from __future__ import annotations

from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.prompts.sets import load_prompt_set
from bpgo.rewards.shared.tokens import cut_texts


def cut_notes(settings: Settings, prompts_here: bool) -> list[str]:
    """A line for each reward that reads no more than so many tokens of a prompt.

    Args:
        settings: a configuration.
        prompts_here: whether the prompts are on this machine; nothing is fetched for this.
    """
    rewards = [name for entry in settings.experiments for name in settings.rewards_of(entry)]
    limits = {name: settings.longest_prompt(name) for name in settings.models_of(rewards)}
    limited = {name: most for name, most in limits.items() if most is not None}
    if not limited:
        return []
    if not prompts_here:
        names = ", ".join(f"{name} {most}" for name, most in limited.items())
        return [f"tokens of a prompt that are read: {names}; longer prompts are not counted yet"]
    try:
        prompts = load_prompt_set(settings.prompts)
        made = {"training": prompts.split("train"), "evaluation": prompts.split("evaluation")}
    except UserError as error:
        return [str(error)]
    splits = {split: [prompt.text for prompt in found.prompts] for split, found in made.items()}
    splits["evaluation"] = splits["evaluation"][: settings.evaluation.prompts]
    return [_note(settings, name, most, splits) for name, most in limited.items()]


def _note(settings: Settings, name: str, most: int, splits: dict[str, list[str]]) -> str:
    said = f"{name} reads at most {most} tokens of a prompt"
    try:
        counts = {split: sum(cut_texts(settings, name, texts)) for split, texts in splits.items()}
    except UserError as error:
        return f"{said}; longer prompts are not counted: {error}"
    many = " and ".join(
        f"{count} of {len(splits[split])} {split} prompts" for split, count in counts.items()
    )
    return f"{said}: of {many} only the beginning"
