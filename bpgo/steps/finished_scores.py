"""Scores by the rewards that are done, kept until all of them are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from bpgo.storage.files import sha256, text_digest
from bpgo.storage.tables import read_table, write_table


class FinishedScores:
    """Scores [N] by reward, each in a file of its own as soon as it is known.

    Args:
        output: the file that will hold them all; they wait in a hidden folder beside it.
        samples: the folder of what is scored; other samples or settings have other scores.
        digest: of the settings.
    """

    def __init__(self, output: Path, samples: Path, digest: str) -> None:
        index = samples / "index.parquet"
        scored = f"{digest} {sha256(index)} {index.stat().st_mtime_ns}"
        self.folder = output.with_name(f".{output.stem}")
        self.place = self.folder / text_digest(scored)

    def __contains__(self, name: str) -> bool:
        return self._file(name).exists()

    def __getitem__(self, name: str) -> np.ndarray:
        values: np.ndarray = read_table(self._file(name), f"remove {self.folder}").score.to_numpy()
        return values

    def __setitem__(self, name: str, scores: np.ndarray) -> None:
        write_table(pd.DataFrame({"score": scores}), self._file(name))

    def remove(self) -> None:
        """Forget all, older ones too."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.place / f"{name}.parquet"
