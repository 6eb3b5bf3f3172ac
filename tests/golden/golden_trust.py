"""Published trust rules -> `bpgo.trust`."""

from __future__ import annotations

from typing import Any

import torch
from golden_case import Case

from bpgo.trust.gardo import GardoSettings, ShareController, gate_threshold, rank_uncertainty

Answers = dict[str, Any]


def gardo_gate(case: Case) -> Answers:
    """GARDO's uncertainty by ranks, the threshold on it and the gate, as released."""
    assert not case.arg("history")
    auxiliary = [case.tensor(f"reward_{name}") for name in ("aesthetic", "imagereward")]
    found = rank_uncertainty(case.tensor("reward_main"), auxiliary)
    share = case.arg("share")
    threshold = gate_threshold(found, share)
    return {
        "uncertainty": found,
        "share_used": share,  # the first call only stores its mean
        "threshold": threshold,
        "gate": found > threshold,
        "positive_mean": found[found >= 0].mean(),
    }


def gardo_controller(case: Case) -> Answers:
    """GARDO `RiskCompensator.update`, call after call."""
    if case.arg("alpha") != case.arg("beta"):
        raise AssertionError("the share grows and shrinks by one relative step")
    settings = GardoSettings(
        share=case.arg("base"),
        step=case.arg("beta"),
        lowest=case.arg("beta_min"),
        highest=case.arg("beta_max"),
        window=case.arg("window"),
    )
    controller = ShareController(settings)
    rows = zip(case.tensor("positive_uncertainty"), case.tensor("count").tolist(), strict=True)
    shares = [controller.update(row[:count].mean().item()) for row, count in rows]
    return {"share": torch.tensor(shares, dtype=torch.float64)}
