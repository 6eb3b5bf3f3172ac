"""A picture that was changed after it was sampled is not shown as the policy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bpgo.analysis.grids import make_grids
from bpgo.config.jobs import samples_folder
from bpgo.config.settings import Settings
from bpgo.storage.files import sha256
from bpgo.storage.tables import write_table

RED, GREEN = (200, 0, 0), (0, 200, 0)


def test_a_changed_picture_is_left_out(settings: Settings, tmp_path: Path) -> None:
    changed: Path | None = None
    for run in [*settings.base_runs(), *settings.runs()]:
        if run.experiment != "ambiguous" or run.arm not in ("base", "grpo"):
            continue
        file = tmp_path / "samples" / samples_folder(run, settings) / "0.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), RED).save(file)
        row = {"prompt_id": "e0000", "text": "a circle", "ambiguity": 0.0, "sample": 0}
        row |= {"seed": run.seed, "iteration": 20, "path": file.name, "sha256": sha256(file)}
        write_table(pd.DataFrame([row]), file.with_name("index.parquet"))
        if run.arm == "grpo" and run.seed == 1:
            changed = file
    make_grids(settings, tmp_path / "samples", tmp_path / "grids")
    before = shown(tmp_path)
    assert changed is not None
    Image.new("RGB", (24, 24), GREEN).save(changed)
    make_grids(settings, tmp_path / "samples", tmp_path / "grids")
    after = shown(tmp_path)
    assert GREEN not in after
    assert before[RED] - after[RED] == 96 * 96


def shown(root: Path) -> dict[tuple[int, ...], int]:
    """How often the grid has each colour."""
    with Image.open(root / "grids" / "ambiguous.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    pairs = zip(colours.tolist(), counts.tolist(), strict=True)
    return {tuple(colour): count for colour, count in pairs}
