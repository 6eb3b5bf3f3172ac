"""The allocator's settings: what is chosen where, and that it acts and changes no result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_world import make_trainer, weights

from bpgo.run import allocator
from bpgo.run.allocator import NAME, allocator_variables, libc_version
from bpgo.storage.files import repository_root

GLIBC = sys.platform == "linux" and (libc_version() or (0, 0)) >= allocator.OLDEST
needs_glibc = pytest.mark.skipif(not GLIBC, reason="the settings are glibc's")
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def tunables(variables: dict[str, str]) -> dict[str, str]:
    assert set(variables) == {NAME}
    return dict(each.split("=") for each in variables[NAME].split(":"))


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A Linux with glibc 2.41, huge pages where asked for, and plenty of address space."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.41")
    (tmp_path / "pages").write_text("always [madvise] never\n")
    (tmp_path / "overcommit").write_text("0\n")
    return {"pages": tmp_path / "pages", "overcommit": tmp_path / "overcommit"}


@pytest.mark.parametrize("pages", ["always [madvise] never", "[always] madvise never"])
def test_all_of_it_where_it_can_act(pages: str, system: dict[str, Path]) -> None:
    system["pages"].write_text(pages)
    variables, reason = allocator_variables({}, **system)
    assert reason == ""
    assert tunables(variables) == {
        "glibc.malloc.hugetlb": "1",
        "glibc.malloc.trim_threshold": "8589934592",
        "glibc.malloc.mmap_threshold": "8589934592",
        "glibc.malloc.top_pad": "268435456",
    }


@pytest.mark.parametrize("pages", ["always madvise [never]", None])
def test_thresholds_alone_without_huge_pages(pages: str | None, system: dict[str, Path]) -> None:
    if pages is None:
        system["pages"].unlink()
    else:
        system["pages"].write_text(pages)
    variables, reason = allocator_variables({}, **system)
    assert "glibc.malloc.hugetlb" not in tunables(variables)
    assert len(tunables(variables)) == 3
    assert "huge pages" in reason
    assert "\n" not in reason


def test_no_larger_heap_where_address_space_takes_memory(system: dict[str, Path]) -> None:
    system["overcommit"].write_text("2\n")
    variables, reason = allocator_variables({}, **system)
    assert "glibc.malloc.top_pad" not in tunables(variables)
    assert "backs address space by memory" in reason


def test_a_users_own_settings_are_kept(system: dict[str, Path]) -> None:
    own = "glibc.malloc.trim_threshold=1000:glibc.rtld.nns=4:nonsense"
    variables, _ = allocator_variables({NAME: own}, **system)
    found = tunables(variables)
    assert found["glibc.malloc.trim_threshold"] == "1000"
    assert found["glibc.rtld.nns"] == "4"
    assert found["glibc.malloc.mmap_threshold"] == "8589934592"


@pytest.mark.parametrize("version", ["glibc 2.34", "glibc 2.9"])
def test_nothing_with_an_old_glibc(
    version: str, system: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: version)
    variables, reason = allocator_variables({}, **system)
    assert variables == {}
    assert f"{version.replace(' ', ' is ')}, older than 2.35" in reason


def unknown(_: str) -> str:
    raise ValueError("unrecognized configuration name")


def test_nothing_with_another_c_library(
    system: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in (unknown, lambda _: None, lambda _: "musl 1.2.5"):
        monkeypatch.setattr(os, "confstr", answer)
        assert libc_version() is None
        assert allocator_variables({}, **system) == (
            {},
            "allocator settings are not used: the C library is not glibc",
        )
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "confstr")
    assert allocator_variables({}, **system)[0] == {}


def said(script: str, variables: dict[str, str]) -> list[str]:
    """Words that a fresh Python prints, with these variables and no settings of ours before."""
    kept = {name: value for name, value in os.environ.items() if name != NAME}
    paths = os.pathsep.join([str(repository_root()), str(FIXTURES), str(Path(__file__).parent)])
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split()


@needs_glibc
def test_it_acts_and_takes_no_memory_of_its_own() -> None:
    script = """
from bpgo.run.allocator import keeps_memory
import resource, sys
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert "torch" not in sys.modules
print(keeps_memory(), before)
"""
    kept, usual = said(script, allocator_variables({})[0]), said(script, {})
    assert [kept[0], usual[0]] == ["True", "False"]
    assert int(kept[1]) - int(usual[1]) < 8192  # KiB of a process that does nothing


def digest_of_training(output: Path, folder: Path) -> str:
    """Weights after two iterations, as a digest."""
    import hashlib

    trainer = make_trainer(folder, output)
    for iteration in (1, 2):
        trainer.iterate(iteration)
    digest = hashlib.sha256()
    for value in weights(trainer).values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


@needs_glibc
def test_a_training_has_the_same_weights(tiny_folder: Path, tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from test_allocator import digest_of_training
print(digest_of_training(Path({str(tmp_path)!r}), Path({str(tiny_folder)!r})))
"""
    assert said(script, allocator_variables({})[0]) == said(script, {})
