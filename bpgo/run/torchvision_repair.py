"""A torchvision built for CUDA beside a torch built for the CPU.

Package indexes hand out the CUDA build of torchvision. Its compiled operators do not load beside a
CPU torch, and then `import torchvision` fails with `operator torchvision::nms does not exist`, and
with it transformers, peft, open_clip and timm, which import it where it is installed. Nothing here
uses the operators; declaring them is enough for everything else to work.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # that of typing takes longer to import than all else here
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Any] = []  # a library's declarations last as long as the library object


class _BeforeTorchvision:
    """Runs once, when torchvision is about to be imported; finds nothing itself."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_operators()
        return None


def install() -> None:
    """Repair torchvision when something first imports it; costs nothing until then."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())


def declare_missing_operators() -> bool:
    """Declare torchvision's operators if its compiled ones do not load; whether it did."""
    from importlib.machinery import PathFinder
    from pathlib import Path

    import torch

    found = PathFinder.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return False
    for library in Path(found.submodule_search_locations[0]).glob("_C*.so"):
        try:
            torch.ops.load_library(library)
        except (ImportError, OSError):
            break
    else:
        return False
    declarations = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        declarations.define(schema)
    _declared.append(declarations)
    return True
