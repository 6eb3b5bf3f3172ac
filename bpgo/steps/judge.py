"""The judges' scores of the base policy's samples: the test of the paper's premise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bpgo.config import contents
from bpgo.config.jobs import draw_digest
from bpgo.config.settings import MAIN, Settings
from bpgo.records import Calibration
from bpgo.rewards.shared.tokens import cut_texts
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.draw_scores import Scores, read_scores, scales, score_draws, score_table
from bpgo.steps.draws import Draws, open_draws
from bpgo.steps.prompts import read_prompts
from bpgo.steps.sums import with_sums
from bpgo.storage.tables import write_table


def judge(
    settings: Settings,
    experiment: str,
    prompts: Path,
    draws: Path,
    calibration: Path,
    output: Path,
    threads: int = 1,
) -> None:
    """Complete the scores of the base policy's samples; nothing is trained on what this writes.

    Writes `samples.parquet` (prompt_id, ambiguity, sample, reward, score, cut) with the scores of
    every reward of the main environment, sums included, and, last, `scales.json`, a calibration
    with the scale of every part of their sums. `cut`: the prompt is longer than the reward reads.
    Scores that `calibrate` left beside `calibration` are taken, if they are by a reward as it is
    now; the samples are decoded for the others alone.

    Raises:
        UserError: for an unknown experiment, and files that are missing, damaged or others'.
        NonFiniteError: naming the reward and prompt.
    """
    loading.check_experiment(settings, experiment)
    wanted = settings.calibration
    batch = read_prompts(prompts, wanted.prompts)[: wanted.prompts]
    drawn = draw_digest(settings, settings.sampler_of(experiment))
    samples = open_draws(draws, drawn, batch, wanted.samples_per_prompt)
    anchor = Calibration.load(calibration, contents.calibration(settings, experiment))
    of, place = contents.calibration_scores(settings, experiment), calibration.parent
    known = read_scores(place / "scores.parquet", settings, drawn, samples, of)
    names = settings.in_environment(experiment, MAIN)
    models = settings.models_of(names)
    if missing := [name for name in models if name not in known]:
        known |= _scored(settings, experiment, missing, samples, threads)
    table = score_table(samples, models, known)
    cut = {
        (name, prompt): each
        for name in models
        for prompt, each in zip(batch.ids, cut_texts(settings, name, batch.texts), strict=True)
    }
    table["cut"] = [cut[key] for key in zip(table.reward, table.prompt_id, strict=True)]
    anchor = replace(anchor, parts=anchor.parts | scales(settings, names, table))
    table = with_sums(settings, names, table, anchor)
    write_table(table, output / "samples.parquet", of)
    anchor.save(output / "scales.json", contents.scales(settings, experiment))


def _scored(
    settings: Settings, experiment: str, names: list[str], samples: Draws, threads: int
) -> Scores:
    """Scores by the rewards `names`."""
    device = loading.prepare_process(settings, threads)
    policy = loading.load_decoder(settings, device)
    rewards = loading.load_rewards(settings, names, device)
    with Progress(f"{experiment}: judge", settings.calibration.prompts) as progress:
        return score_draws(policy, samples, rewards, progress)
