from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import synthetic
from PIL import Image

from bpgo.analysis import FIGURES, grids
from bpgo.analysis.figures import style
from bpgo.analysis.figures.make import CAPTIONS, DRAW, caption_of, make_figures
from bpgo.analysis.grids import choose_prompts, make_grids
from bpgo.analysis.report import make_report
from bpgo.analysis.run_facts import facts
from bpgo.analysis.tables.make import make_tables
from bpgo.config.jobs import samples_folder
from bpgo.config.runs import Run
from bpgo.errors import UserError
from bpgo.storage.clips import write_clip
from bpgo.storage.contact_sheet import enlarge
from bpgo.storage.files import repository_root
from bpgo.storage.tables import write_table


@pytest.fixture(scope="session")
def figures(settings, root, statistics):
    make_figures(settings, statistics, root / "collected", root / "figures")
    return root / "figures"


@pytest.fixture(scope="session")
def samples(settings, root):
    """Samples of the base policy, GRPO and BPGO; one seed of BPGO is missing."""
    for run in [*settings.base_runs(), *settings.runs()]:
        if run.arm not in ("base", "grpo", "bpgo") or run == Run("ambiguous", "bpgo", 2):
            continue
        folder = root / "samples" / samples_folder(run, settings)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        rows = []
        for k in range(12):
            colour = (40 * run.seed, 20 * k, 200)
            Image.new("RGB", (24, 24), colour).save(folder / "images" / f"{k}.png")
            rows.append(
                {
                    "prompt_id": f"e{k:04d}",
                    "text": "a small red circle <left> of a large blue square & a cross",
                    "ambiguity": k / 11,
                    "sample": 0,
                    "seed": run.seed,
                    "iteration": 0 if run.arm == "base" else 20,
                    "path": f"images/{k}.png",
                }
            )
        write_table(pd.DataFrame(rows), folder / "index.parquet")
    return root / "samples"


@pytest.fixture(scope="session")
def page(settings, root, statistics, figures, samples):
    make_tables(settings, statistics, root / "tables")
    make_grids(settings, samples, root / "grids")
    output = root / "report" / "index.html"
    make_report(settings, statistics, root / "tables", figures, output, grids=root / "grids")
    return output.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects addresses, ids and text; checks that tags close."""

    def __init__(self):
        super().__init__()
        self.addresses, self.ids, self.links, self.open = [], [], [], []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("src", "srcset", "data") if key in found]
        if tag == "link":
            self.addresses.append(found.get("href"))
        if tag == "a":
            self.links.append(found["href"])
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="session")
def read(page):
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def test_page_needs_nothing_from_elsewhere(page, read):
    assert read.addresses
    assert all(address.startswith("data:image/png;base64,") for address in read.addresses)
    assert not re.search(r"@import|url\(|<script|<link|<iframe", page)
    assert len(page) < 6e6


def test_page_holds_every_part(read):
    for name in set(FIGURES) - {"path"}:  # no divergence in these made-up runs
        assert f"figure-{name}" in read.ids
    assert "figure-path" not in read.ids
    assert "Not shown, for want of data: path." in read.text
    data = [link for link in read.links if link.startswith("data:text/csv;base64,")]
    assert len(data) >= 2 * (len(FIGURES) - 1)
    assert {link.removeprefix("#") for link in read.links if link not in data} <= set(read.ids)
    assert {"grid-ambiguous", "grid-clear", "limits", "missing", "table-main"} <= set(read.ids)


def test_page_escapes_what_comes_from_the_configuration(page):
    assert "Synthetic &lt;suite&gt; &amp; co" in page
    assert "<suite>" not in page


def test_page_names_missing_runs_and_digests(settings, read):
    for words in ("flow_grpo", "rollouts.parquet", settings.digest(), "c0de", "Imaginary CPU"):
        assert words in read.text


def test_answers_follow_the_statistics(settings, root, figures, frames, tmp_path, read):
    assert "GRPO raises its training reward by" in read.text
    assert "lowers the main metric" in read.text
    assert "Declared beforehand, BPGO against GRPO on Oracle: +" in read.text
    assert "seen from" in read.text
    changed = tmp_path / "statistics"
    changed.mkdir()
    for file in (root / "statistics").iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    claims = frames["claims"].assign(claim_verdict="not resolved", verdict="not resolved")
    write_table(claims, changed / "claims.parquet")
    gaps = frames["differences"].assign(verdict="not resolved")
    write_table(gaps, changed / "differences.parquet")
    output = tmp_path / "index.html"
    make_report(settings, changed, root / "tables", figures, output)
    text = output.read_text()
    assert "✓ supported" not in text
    assert "✗ contradicted" not in text
    assert "raises its training reward by" not in text
    assert 'id="samples"' not in text


def test_smoke_page_warns(settings, root, statistics, figures, tmp_path):
    smoke = settings.model_copy(update={"scale": "smoke"})
    make_report(smoke, statistics, root / "tables", figures, tmp_path / "index.html")
    assert "smoke run" in (tmp_path / "index.html").read_text()


def test_report_without_figures_is_refused(settings, statistics, tmp_path):
    with pytest.raises(UserError, match=r"training_reward\.png"):
        make_report(settings, statistics, tmp_path, tmp_path, tmp_path / "index.html")


def test_every_figure_has_both_forms_and_a_caption(figures):
    expected = {f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")}
    assert {path.name for path in figures.iterdir()} == expected
    assert set(CAPTIONS) == set(DRAW) == set(FIGURES)


def test_the_caption_says_what_rollouts_are_relative_to():
    """In the default the calibration knows half of the training prompts."""
    frames = {"training": pd.DataFrame({"adjusted": [True, True]})}
    assert "relative to the base policy on the same prompts" in caption_of(
        "training_reward", frames
    )
    frames = {"training": pd.DataFrame({"adjusted": [True, False]})}
    said = caption_of("training_reward", frames)
    assert "on the same prompts" not in said
    assert "the curves hold the chance of which prompts an iteration drew" in said
    assert caption_of("curves", frames) == CAPTIONS["curves"]


def test_figures_are_equal_when_made_twice(settings, frames, figures, tmp_path):
    with style.look():
        for name in ("training_reward", "trust"):
            style.save_figure(DRAW[name](settings, frames), tmp_path, name)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        assert content == (figures / path.name).read_bytes(), path.name
        assert b"CreationDate" not in content


def test_figures_without_data_say_so(settings, frames, tmp_path):
    plain = settings.model_copy(update={"sweeps": {}})
    empty = {name: frame.iloc[:0] for name, frame in frames.items()}
    for draw in DRAW.values():
        assert draw(plain, empty) is not None
    columnless = {name: pd.DataFrame() for name in ("premise", "premise_summary", "trust")}
    for name in ("premise", "trust"):
        figure = DRAW[name](plain, {**empty, **columnless, "trust_summary": pd.DataFrame()})
        assert "No " in figure.axes[0].texts[0].get_text()


def test_grid_places_equal_prompts_side_by_side(settings, root, samples, page):
    with Image.open(root / "grids" / "ambiguous.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    tile = pixels[44 : 44 + 96, 300 : 300 + 96]
    assert (tile == tile[0, 0]).all()  # enlarged without smoothing
    assert tuple(tile[0, 0]) == (40, 0, 200)
    beside = pixels[44, 300 + 96 + 6]
    assert tuple(beside) == (40, 0, 200)


@pytest.fixture(scope="session")
def clips(settings, root, tmp_path_factory):
    """Clips of the same runs; a square crosses each, another in every arm."""
    folder = tmp_path_factory.mktemp("clips")
    colours = {"base": (200, 0, 0), "grpo": (0, 200, 0), "bpgo": (0, 0, 200)}
    for run in [*settings.base_runs(), *settings.runs()]:
        if run.arm not in colours or run == Run("ambiguous", "bpgo", 2):
            continue
        place = folder / "samples" / samples_folder(run, settings)
        rows = []
        for k in range(3):
            clip = np.full((5, 3, 24, 32), 255, np.uint8)
            for frame in range(5):
                x = 6 * frame + k
                clip[frame, :, 8:14, x : x + 6] = np.array(colours[run.arm])[:, None, None]
            write_clip(place / f"{k}.mp4", clip, quality="lossless")
            row = {"prompt_id": f"e{k}", "text": "a circle that moves right", "ambiguity": k / 2}
            rows.append(row | {"sample": 0, "seed": run.seed, "iteration": 20, "path": f"{k}.mp4"})
        write_table(pd.DataFrame(rows), place / "index.parquet")
    (folder / "samples" / "clear" / "bpgo" / "seed_1" / "2.mp4").write_bytes(b"broken")
    make_grids(synthetic.as_video(settings, "t2v"), folder / "samples", folder / "grids")
    return folder


@pytest.fixture(scope="session")
def video_page(settings, root, statistics, figures, clips):
    output = clips / "index.html"
    video = synthetic.as_video(settings, "i2v")
    make_report(video, statistics, root / "tables", figures, output, grids=clips / "grids")
    return output.read_text(encoding="utf-8")


def test_clips_move_side_by_side_in_the_page(video_page):
    reader = Reader()
    reader.feed(video_page)
    assert {"grid-ambiguous", "grid-ambiguous-frames", "grid-clear"} <= set(reader.ids)
    moving = [a for a in reader.addresses if a.startswith("data:image/webp;base64,")]
    assert len(moving) == 2
    with Image.open(io.BytesIO(base64.b64decode(moving[0].split(",")[1]))) as image:
        assert (image.n_frames, image.info["loop"]) == (5, 0)
        for frame in range(5):
            image.seek(frame)
            pixels = np.asarray(image.convert("RGB"))
            for place, colour in enumerate(((200, 0, 0), (0, 200, 0), (0, 0, 200))):
                # Tiles are enlarged three times; the square crosses 6 of 32 pixels a frame.
                x = 300 + place * (96 + 6) + 3 * 6 * frame
                assert (pixels[44 + 24 : 44 + 42, x : x + 18] == colour).all()
        assert image.info["duration"] == 125 + 700, "a rest at the end"


def test_a_contact_sheet_has_frames_in_columns_and_arms_in_rows(clips):
    with Image.open(clips / "grids" / "ambiguous.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    for place, colour in enumerate(((200, 0, 0), (0, 200, 0), (0, 0, 200))):
        for frame in range(5):
            x, y = 300 + 120 + frame * 102 + 18 * frame, 44 + place * (72 + 6)
            assert (pixels[y + 24 : y + 42, x : x + 18] == colour).all()


def test_the_given_first_frame_stands_before_the_arms(settings, clips, tmp_path):
    """A yellow frame beside every caption; a frame that is lost is drawn as missing."""
    shutil.copytree(clips / "samples", tmp_path / "samples")
    given = tmp_path / "given.png"
    Image.new("RGB", (32, 24), (250, 220, 0)).save(given)
    for index in (tmp_path / "samples").rglob("index.parquet"):
        frames = [str(given), str(given), str(tmp_path / "lost.png")]
        write_table(pd.read_parquet(index).assign(first_frame=frames), index)
    make_grids(synthetic.as_video(settings, "i2v"), tmp_path / "samples", tmp_path / "grids")
    with Image.open(tmp_path / "grids" / "ambiguous.webp") as image:
        moving = np.asarray(image.convert("RGB"))
    with Image.open(tmp_path / "grids" / "ambiguous.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    for pixels, step in ((moving, 78), (sheet, 3 * 78)):
        for row in range(2):
            tile = pixels[44 + row * step : 44 + row * step + 72, 300:396]
            assert (tile == (250, 220, 0)).all()
        assert not (pixels[44 + 2 * step : 44 + 2 * step + 72, 300:396] == (250, 220, 0)).all()
    beside = moving[44 + 24 : 44 + 42, 300 + 96 + 18 : 300 + 96 + 18 + 18]
    assert (beside == (200, 0, 0)).all(), "the base policy's square of the first frame"


def test_words_are_those_of_the_task(settings, video_page, page):
    assert "tunes an image-to-video generator" in video_page
    assert "clips of 5 frames of 32 × 24 pixels, from a given first frame" in video_page
    assert "tunes an image generator" in page
    assert "images of 24 × 24 pixels" in page
    words = re.sub(r"data:image/[a-z]+;base64|<[^>]*>", "", video_page)
    found = set(re.findall(r"[^.<>\n]{0,30}\bimages?\b[^.<>\n]{0,30}", words))
    named = ("image-to-video", "image to video", "text to image (FLUX")  # the last: Table 2
    assert all(any(name in text for name in named) for text in found), found


def test_large_clips_are_coded_within_bounds(settings, clips, tmp_path, monkeypatch):
    """Noise that nothing compresses: the lowest quality is taken, and the page still has it."""
    monkeypatch.setattr(grids, "BYTES", 20_000)
    noise = np.random.default_rng(0).integers(0, 256, (30, 3, 48, 128), dtype=np.uint8)
    sizes = {}
    for name, quality in (("first", grids.QUALITIES), ("best", grids.QUALITIES[:1])):
        monkeypatch.setattr(grids, "QUALITIES", quality)
        place = tmp_path / "samples" / "base" / "seed_1"
        write_clip(place / "0.mp4", noise)
        row = {"prompt_id": "e0", "text": "noise", "ambiguity": np.nan, "sample": 0}
        write_table(
            pd.DataFrame([row | {"iteration": 0, "path": "0.mp4"}]), place / "index.parquet"
        )
        video = synthetic.as_video(settings, "t2v")
        video = video.model_copy(
            update={
                "experiments": {"ambiguous": video.experiments["ambiguous"]},
                "model": video.model.model_copy(
                    update={"resolution": 48, "width": 128, "frames": 30}
                ),
            }
        )
        make_grids(video, tmp_path / "samples", tmp_path / name)
        sizes[name] = (tmp_path / name / "ambiguous.webp").stat().st_size
        with Image.open(tmp_path / name / "ambiguous.webp") as image:
            assert image.n_frames == 24, "evenly spaced ones of the 30"
    assert sizes["first"] < sizes["best"]


def test_seeds_are_counted_in_good_english(page):
    assert not re.search(r"\b1 (seeds|groups)\b", page)


def test_scores_collected_under_another_configuration_say_which(settings):
    """Only where it is another: the page then names both digests."""
    account = {"complete_runs": 1, "expected_runs": 1}
    for digest, named in ((settings.digest(), False), ("0123456789abcdef", True)):
        found = facts(settings, {**account, "config_digest": digest}, pd.DataFrame())
        assert found["Configuration digest"] == settings.digest()
        assert (digest in found.get("Collected under", "")) == named


def test_grid_without_samples_is_refused(settings, tmp_path):
    with pytest.raises(UserError, match="no samples of base, grpo, bpgo"):
        make_grids(settings, tmp_path, tmp_path / "grids")


def test_prompts_span_the_ambiguities():
    index = pd.DataFrame(
        {"prompt_id": [f"p{k}" for k in range(50)], "ambiguity": np.arange(50) % 5}
    )
    chosen = choose_prompts(index, 6)
    assert len(chosen) == 6
    assert chosen["ambiguity"].is_monotonic_increasing
    assert set(chosen["ambiguity"]) == {0, 1, 2, 3, 4}
    assert len(choose_prompts(index.head(3), 6)) == 3


@pytest.mark.parametrize(("size", "expected"), [(24, 96), (50, 100), (512, 192)])
def test_images_are_enlarged_by_whole_factors(size, expected):
    assert enlarge(Image.new("RGB", (size, size))).size == (expected, expected)


def test_analysis_imports_no_torch():
    modules = sorted(
        ".".join(path.relative_to(repository_root()).with_suffix("").parts)
        for path in (repository_root() / "bpgo" / "analysis").rglob("*.py")
        if path.stem != "__init__"
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository_root()).returncode == 0


def test_captions_for_the_workflow_report():
    folder = repository_root() / "workflow" / "report"
    for name in FIGURES:
        assert "95%" in (text := (folder / f"figure_{name}.rst").read_text()) or "base sd" in text
