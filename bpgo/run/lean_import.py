"""Start a training or sampling process without the imports it does not use.

Asked for one model, `diffusers` imports every transformer it has, and transformers, peft, scipy
and the compiler: seconds of start-up for every job of a workflow. `import_lean` loads the classes
of one model alone. Only a process that uses just those may call it (full weights, cached prompt
embeddings); everything works without it, only later.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# Packages whose `__init__` imports all their models: a stand-in serves while one is imported.
EAGER_PACKAGES = ("diffusers.models.transformers", "diffusers.models.autoencoders")
# Optional parts that diffusers does without when they cannot be imported.
LEFT_OUT = ("torch._dynamo", "transformers", "peft", "scipy")
EULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete"
MODULES = {  # of a model's file in bpgo/models, by its kind
    "flux": (
        "diffusers.models.transformers.transformer_flux",
        "diffusers.models.autoencoders.autoencoder_kl",
        EULER,
    ),
    "wan": (
        "diffusers.models.transformers.transformer_wan",
        "diffusers.models.autoencoders.autoencoder_kl_wan",
        "diffusers.schedulers.scheduling_unipc_multistep",
        EULER,
    ),
}


def import_lean(*kinds: str) -> None:
    """Import the classes of some kinds of models; nothing for others, or if diffusers is there.

    Args:
        kinds: as in a model's configuration, such as `flux`.
    """
    modules = [module for kind in kinds for module in MODULES.get(kind, ())]
    if "diffusers" in sys.modules or not modules:
        return
    # `torch.compiler.disable` marks functions for a compiler that is not loaded here. The map of
    # all installed files is read for packages whose name differs from their distribution's; none
    # of them is used.
    with (
        _left_out(),
        _replaced(torch.compiler, disable=_unchanged),
        _replaced(importlib.metadata, packages_distributions=dict),
    ):
        utils = importlib.import_module("diffusers.utils.import_utils")
        flags = {f"_{name}_available": False for name in LEFT_OUT[1:]}
        with _replaced(utils, **flags), _stand_ins():
            for module in modules:
                importlib.import_module(module)


def _unchanged(function=None, *_args, **_keys):  # type: ignore[no-untyped-def]
    return function if function is not None else _unchanged


@contextmanager
def _replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes of a module have other values inside."""
    kept = {name: getattr(owner, name) for name in values}
    vars(owner).update(values)
    try:
        yield
    finally:
        vars(owner).update(kept)


@contextmanager
def _left_out() -> Iterator[None]:
    """Importing one of `LEFT_OUT` fails inside, unless it is loaded already."""
    absent = [name for name in LEFT_OUT if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def _stand_ins() -> Iterator[None]:
    specification = importlib.util.find_spec("diffusers")
    assert specification is not None
    assert specification.submodule_search_locations
    root = Path(specification.submodule_search_locations[0])
    for name in EAGER_PACKAGES:
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in EAGER_PACKAGES:
            sys.modules.pop(name, None)
