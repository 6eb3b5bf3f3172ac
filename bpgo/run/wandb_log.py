"""The numbers and pictures of a run in Weights & Biases, where a person asks for it.

`BPGO_WANDB=PROJECT` in the environment asks; wandb's own variables say the rest (WANDB_MODE,
WANDB_ENTITY, ...). The package is no dependency, and no run ends because of it.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bpgo.errors import UserError
from bpgo.storage.files import text_digest

VARIABLE = "BPGO_WANDB"


class WandbLog:
    """One run there; a resumed one goes on.

    Args:
        project: a name.
        title: of the run, such as `clear/grpo/seed_1`.
        folder: the run's, which makes it the same run when it is resumed.
        say: takes a line for the person where something fails.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, project: str, title: str, folder: Path, say: Callable[[str], None]) -> None:
        try:
            self._wandb: Any = importlib.import_module("wandb")
        except ImportError:
            raise UserError(
                f"{VARIABLE}: '{project}' asks for Weights & Biases, and the package wandb is not"
                f" installed: install it, or unset {VARIABLE}"
            ) from None
        self._say, self._run = say, None
        name = text_digest(str(Path(folder).resolve()))
        options = {"id": name, "name": title, "resume": "allow", "dir": str(folder)}
        self._run = self._try(lambda: self._wandb.init(project=project, **options))

    def write(self, entry: dict[str, Any], png: bytes | None = None) -> None:
        """One iteration: its numbers, and a picture of samples where there is one."""
        run = self._run
        if run is None:
            return
        values = {name: value for name, value in entry.items() if name != "iteration"}
        if png is not None:
            from PIL import Image

            values["samples"] = self._wandb.Image(Image.open(io.BytesIO(png)))
        self._try(lambda: run.log(values, step=entry["iteration"]))

    def close(self) -> None:
        """Send what waits."""
        if self._run is not None:
            self._try(self._run.finish)

    def _try(self, call: Callable[[], Any]) -> Any:
        """What fails there is said once, and the run goes on without it."""
        try:
            return call()
        except Exception as error:
            self._run = None
            reason = " ".join(str(error).split())[:200]
            self._say(
                f"Weights & Biases: {reason or type(error).__name__}; the run goes on without"
            )
            return None


def wandb_log(title: str, folder: Path, say: Callable[[str], None]) -> WandbLog | None:
    """What the environment asks for; None where it does not."""
    project = os.environ.get(VARIABLE, "").strip()
    return WandbLog(project, title, folder, say) if project else None
