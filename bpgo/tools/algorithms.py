"""The page on algorithms: what files of the repository say of each arm, between its own words.

A section's text is written by hand; what stands between the two marks is made anew from the arm's
YAML file, its comments and its row in `baselines/README.md`: `python -m bpgo.tools.algorithms`.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import yaml

from bpgo import registry
from bpgo.config.resolve import load_arm
from bpgo.config.yaml_files import SCHEMA_LINE
from bpgo.errors import UserError
from bpgo.storage.files import repository_root, write_text

NAMES = ("base", "algorithm", "title", "source")  # what an arm is called
PAPER = re.compile(r"\b\d{4}\.\d{5}\b")  # an arXiv id
BEGIN, END = "<!-- made of config/arms/{}.yaml -->", "<!-- end -->"
_SECTION = re.compile(
    r"^## [^\n]*\n(?P<text>.*?)<!-- made of config/arms/(?P<name>\w+)\.yaml -->", re.M | re.S
)


def write_page() -> Path:
    """Make `docs/algorithms.md` anew and say where it is."""
    path = repository_root() / "docs" / "algorithms.md"
    write_text(path, page(path.read_text(encoding="utf-8"), repository_root()))
    return path


def page(text: str, root: Path) -> str:
    """The page with a section for every file of `root`/config/arms, in place of the page `text`.

    What stands above the first section stays, and so does what a section says above its mark.
    """
    own = {match["name"]: match["text"].strip() for match in _SECTION.finditer(text)}
    head = text.split("\n## ")[0].strip()
    notes = deviations((root / "baselines" / "README.md").read_text(encoding="utf-8"))
    made = [_section(name, root, own.get(name), notes) for name in ordered(root)]
    return "\n\n".join([head, *made]) + "\n"


def ordered(root: Path) -> list[str]:
    """The arms: those of an algorithm together, first the one that is called like it."""
    algorithms = list(registry.ARMS)
    found = {}
    for path in sorted((root / "config" / "arms").glob("*.yaml")):
        algorithm = load_arm(path.stem, root / "config").algorithm
        found[path.stem] = (algorithms.index(algorithm), path.stem != algorithm, path.stem)
    return sorted(found, key=lambda name: found[name])


def deviations(readme: str) -> dict[str, str]:
    """How ours differs from the published code, by the YAML file of a row of the table there."""
    found = {}
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) == 4 and (match := re.fullmatch(r"`(\w+)\.yaml`", cells[2])):
            found[match[1]] = cells[3]
    return found


def references(text: str) -> dict[str, str]:
    """The keys of a BibTeX file by arXiv id."""
    found = {}
    for entry in text.split("\n@")[1:]:
        key = entry[entry.index("{") + 1 : entry.index(",")]
        if eprint := re.search(r"^ *eprint = \{([\d.]+)\}", entry, re.M):
            found[eprint[1]] = key
    return found


def _cited(source: str, root: Path) -> str:
    """Where the papers of an arm's source stand in the list of references."""
    known = references((root / "docs" / "references.bib").read_text(encoding="utf-8"))
    keys = [f"`{known[paper]}`" for paper in PAPER.findall(source) if paper in known]
    return f"{', '.join(keys)} in [references.bib](references.bib)" if keys else ""


def _experiment(name: str, root: Path) -> str:
    """Where `smoke_arms` trains an arm: with all others, unless it is left out there."""
    file = root / "config" / "smoke_arms.yaml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))["experiments"]
    for experiment, entry in entries.items():
        arms = entry["arms"]
        if name not in arms["all_but"] if isinstance(arms, dict) else name in arms:
            return str(experiment)
    raise UserError(f"{file}: no experiment trains the arm '{name}'")


def stated(path: Path) -> dict[str, tuple[Any, str]]:
    """What a YAML file states: value and comment of each leaf, by dotted key.

    A comment stands beside the value and goes on below it in the same column, or is a block of
    lines above it.
    """
    lines = _lines(path)
    found: dict[str, tuple[Any, str]] = {}

    def block(number: int, column: int, step: int) -> list[str]:
        """Lines that are comments from this column on, upwards or downwards from a line."""
        texts = []
        while 0 <= (number := number + step) < len(lines):
            line = lines[number]
            if not line.startswith("#", column) or line[:column].strip():
                break
            texts.append(line[column:])
        return texts[::step]

    def walk(node: yaml.MappingNode, prefix: str) -> None:
        for key, value in node.value:
            name = prefix + key.value
            if isinstance(value, yaml.MappingNode):
                walk(value, f"{name}.")
                continue
            line, column = key.start_mark.line, key.start_mark.column
            beside = lines[line].find("#")
            texts = block(line, column, -1)
            if beside >= 0:
                texts += [lines[line][beside:], *block(line, beside, 1)]
            plain = yaml.safe_load(yaml.serialize(value))
            found[name] = (plain, " ".join(text.strip("# ") for text in texts))

    root = yaml.compose("\n".join(lines))
    assert isinstance(root, yaml.MappingNode)
    walk(root, "")
    return found


def _section(name: str, root: Path, own: str | None, notes: dict[str, str]) -> str:
    path = root / "config" / "arms" / f"{name}.yaml"
    values, arm = stated(path), load_arm(name, root / "config")
    base = values.get("base", (None, ""))[0]
    parts = [
        f"[{name}.yaml](../config/arms/{name}.yaml)",
        _code(arm.algorithm),
        arm.source,
        _cited(arm.source, root),
    ]
    lines = [f"## {arm.title}", "", own or _differs(arm.algorithm), "", BEGIN.format(name), ""]
    lines += ["; ".join(part for part in parts if part) + ".", ""]
    header = _header(path)
    lines += [header, ""] if header else []
    rows = [(key, *value) for key, value in values.items() if key not in NAMES]
    if rows:
        lines += ["| Key | Value | Where it stands |", "| --- | --- | --- |"]
        lines += [f"| `{key}` | {_shown(value)} | {_cell(note)} |" for key, value, note in rows]
        lines.append("")
    if base:
        lines += [f"What is not said here is as in [{base}.yaml](../config/arms/{base}.yaml).", ""]
    if name in notes:
        lines += [f"Ours differs: {notes[name]}.", ""]
    made = f"results/smoke_arms/runs/{_experiment(name, root)}/{name}/seed_1/manifest.json"
    lines += ["```sh", f"snakemake --cores all {made}", "```", END]
    return "\n".join(lines)


def _code(algorithm: str) -> str:
    file = registry.ARMS[algorithm].replace(".", "/") + ".py"
    return f"[{file}](../{file})"


def _differs(algorithm: str) -> str:
    """What the algorithm's file says of itself, below its first line."""
    text = importlib.import_module(registry.ARMS[algorithm]).__doc__ or ""
    return text.partition("\n\n")[2].partition("\n\n")[0].strip()


def _header(path: Path) -> str:
    """The comment at the head of a YAML file."""
    lines = []
    for line in _lines(path):
        if not line.startswith("#"):
            break
        lines.append(line.strip("# "))
    return " ".join(lines)


def _lines(path: Path) -> list[str]:
    """The lines of a YAML file, without the one that names its schema."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith(SCHEMA_LINE)]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(write_page())
