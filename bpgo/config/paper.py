"""Where the paper reports its own numbers, and which of ours stand beside them."""

from __future__ import annotations

from typing import Literal

from bpgo.config.fields import Name, Strict, Task

PaperMetric = Literal[
    "HPSv2", "PickScore", "ImageReward", "VideoCLIP-XL", "VA-TA", "VA-overall", "Qwen3-VL-Emb"
]


# Where the paper reports a task: the table of its main comparison, and the task's name there.
PAPER_TASKS: dict[Task, tuple[str, str]] = {
    "t2i": ("table2", "T2I (FLUX)"),
    "t2v": ("table1", "T2V"),
    "i2v": ("table1", "I2V"),
}


class PaperSettings(Strict):
    """The paper's own numbers for an experiment, shown in its table beside ours."""

    table: Literal["table1", "table2"]  # results/reference/paper/{table}.csv; the names are its own
    task: Literal["T2I (FLUX)", "T2V", "I2V"]  # its name in that table
    metrics: dict[Name, PaperMetric]  # its name there of each of our rewards
