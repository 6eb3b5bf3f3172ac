"""transformers and open_clip import whichever build of torchvision stands beside torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bpgo.run import torchvision_repair
from bpgo.storage.files import repository_root


def python(script: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh Python runs `script`; `path` stands first among its packages."""
    before = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    command = [sys.executable, "-c", before + script]
    return subprocess.run(command, cwd=repository_root(), capture_output=True, text=True)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_torchvision_imports_after_ours() -> None:
    script = (
        "import bpgo, torch, torchvision\n"
        "from torchvision.transforms.v2 import functional\n"
        "print(tuple(functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape))"
    )
    assert python(script).stdout == "(3, 4, 4)\n"


def test_nothing_heavy_is_imported_for_it() -> None:
    script = "import sys, bpgo; print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    assert python(script).stdout == "[]\n"


def fake_torchvision(folder: Path, library: str | None) -> Path:
    """A torchvision that, like the real one, needs its operator to be there."""
    package = folder / "torchvision"
    package.mkdir(parents=True)
    text = 'import torch\ntorch.library.register_fake("torchvision::nms")(lambda a, b, c: a)\n'
    (package / "__init__.py").write_text(text)
    if library is not None:
        (package / "_C.so").write_text(library)
    return folder


def test_a_library_that_does_not_load_is_made_up_for(tmp_path: Path) -> None:
    folder = fake_torchvision(tmp_path, "not a library")
    plain = python("import torchvision", folder)
    assert "operator torchvision::nms does not exist" in plain.stderr
    repaired = python("import bpgo, torchvision", folder)
    assert repaired.returncode == 0, repaired.stderr


def test_nothing_is_declared_where_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that loads declares the operators itself; twice would be an error."""
    monkeypatch.setattr(sys, "path", [str(fake_torchvision(tmp_path, "loads")), *sys.path])
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    assert not torchvision_repair.declare_missing_operators()
    assert loaded == [tmp_path / "torchvision" / "_C.so"]
