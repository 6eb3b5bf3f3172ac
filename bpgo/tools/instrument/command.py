"""`python -m bpgo instrument`: measure what is not measured yet, then table and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bpgo.analysis.figures import style
from bpgo.analysis.figures.search import search_courses
from bpgo.analysis.statistics.search import course_rows, search_statistics
from bpgo.analysis.tables.format import save_table
from bpgo.analysis.tables.search import search_table
from bpgo.config.search import Search
from bpgo.errors import UserError, suggest
from bpgo.storage.files import atomic_path, read_json, write_json


def instrument(
    search: Search, output: Path, only: str | None, seed: int | None, threads: int = 1
) -> None:
    """Write `output`/runs/{candidate}/seed_{seed}.json for each candidate and seed.

    A file that is there and of the same settings stays. Without `only` and `seed`, which take one
    candidate and one seed, `output`/instrument.{csv,md,tex,png,pdf} and courses.csv follow.

    Raises:
        UserError: for a candidate or seed that the search does not have; a file that is broken.
    """
    _check_chosen(search, only, seed)
    found = [
        _measured(search, name, each, Path(output), threads)
        for name in search.settings
        for each in search.sizes.seeds
        if only in (None, name) and seed in (None, each)
    ]
    if only is None and seed is None:
        _show(search, found, Path(output))


def _check_chosen(search: Search, only: str | None, seed: int | None) -> None:
    known, seeds = list(search.settings), search.sizes.seeds
    if only is not None and only not in known:
        raise UserError(
            f"--only: '{only}' is no candidate.{suggest(only, known)} Known: {', '.join(known)}"
        )
    if seed is not None and seed not in seeds:
        raise UserError(
            f"--seed: {seed} is no seed of the search. Known: {', '.join(map(str, seeds))}"
        )


def _measured(search: Search, name: str, seed: int, output: Path, threads: int) -> dict[str, Any]:
    """What is known of a candidate with one seed; measured now where that is nothing."""
    file = output / "runs" / name / f"seed_{seed}.json"
    if file.exists():
        known = _read(file)
        if known.get("digest") == search.digest(name, seed):
            return known
    from bpgo.tools.instrument.measure import measure

    found = measure(search, name, seed, threads)
    write_json(file, found)
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        known = read_json(file)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read: {reason}; remove it to measure again") from None
    return known if isinstance(known, dict) else {}


def _show(search: Search, found: list[dict[str, Any]], output: Path) -> None:
    courses, frame = course_rows(found), search_statistics(found)
    save_table(search_table(frame, search.sizes), output)
    with atomic_path(output / "courses.csv") as path:
        courses.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    with style.look():
        style.save_figure(search_courses(courses), output, "instrument")
