"""The workflow's own options: where results go, and how jobs start. No settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bpgo.config.fields import LARGEST
from bpgo.errors import UserError, shown

# By default; a configuration file may hold them, and Snakemake's --config.
WORKFLOW_OPTIONS = {"root": "results", "allow_mixed": False, "warm": True, "pretrain_seed": 0}
ROOT = r"results(/(?!reference)[a-z0-9_]+)*"
SEED = "0|[1-9][0-9]{0,9}"
SWITCHES = ("allow_mixed", "warm")


def check_options(values: Mapping[str, Any], file: str = "") -> None:
    """Of `values`, which `file` holds, the workflow's options are as allowed; as text, too.

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    for key in WORKFLOW_OPTIONS:
        if key in values and (allowed := _allowed(key, str(values[key]))):
            place = f"{file}: {key}" if file else key
            word = shown(str(values[key]))
            raise UserError(f"{place}: {word} is not allowed: it must be {allowed}")


def _allowed(key: str, value: str) -> str | None:
    """What the option must be, if it is not."""
    if key == "root" and not re.fullmatch(ROOT, value):
        return "results or a folder of your own below it"
    if key in SWITCHES and value.lower() not in ("true", "false"):
        return "true or false"
    if key == "pretrain_seed" and not (re.fullmatch(SEED, value) and int(value) <= LARGEST):
        return f"from 0 to {LARGEST}"
    return None
