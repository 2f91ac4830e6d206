"""The report shows runs side by side, beside the papers, and plays in a real browser."""

import json
import re

import browser
import numpy as np
import pytest
from PIL import Image

from psrjax import config as config_lib
from psrjax import io
from psrjax.data import video
from psrjax.errors import UserError
from psrjax.evaluation import failure_gallery, score_export, score_statistics
from psrjax.reporting import figures, paper_tables, report

SIZE = 16
NAMES = {"copy_source": "baseline", "layer1": "step", "layer2": "step", "layer3": "step"}


def make_run(folder, variant="tiny", seed=0, level=20.0):
    """A directory as train, evaluate and demo leave it, of noise with known scores."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config_lib.to_json(config_lib.load(f"psrnet:{variant}")))
    scored = [
        score_statistics.Scored(kind, name, pair, f"clip{clip}", 0, scores_of(name, rng, level))
        for name, kind in NAMES.items()
        for clip in range(4)
        for pair in ("1->2", "2->1")
    ]
    about = {"split": "test", "windows": 8, "window_frames": 3, "height": SIZE, "width": SIZE}
    score_export.write(folder, score_statistics.rows(scored, about), scored)
    for stage in ("layer1", "layer2", "layer3"):
        (folder / stage / "samples").mkdir(parents=True)
        lines = [
            {"step": step, "generator/loss": 1 / step, "generator/grad_norm": 0.5}
            for step in (1, 2, 3)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / stage / "metrics.jsonl").write_text(text + '{"step": 4, "gen')  # cut off
        sample = {"step": 2, f"psnr/{stage}": 20.0}
        (folder / stage / "samples" / "scores.jsonl").write_text(json.dumps(sample) + "\n")
    gallery = failure_gallery.Gallery()
    frames = rng.integers(0, 256, (3, 8, SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((8, SIZE, SIZE, 1), np.uint8)
    for number in range(12):
        window = {"clip": f"clip{number}", "target_view": f"cam{number % 2 + 1}", "start": 0}
        found = {"psnr": rng.uniform(10, 20, 8), "ssim": rng.uniform(size=8)}
        gallery.add(window, "1->2", dict(zip(("source", "layer3", "truth"), frames)), mask, found)
    failure_gallery.write(folder / "pictures", gallery)
    (folder / "videos").mkdir()
    video.write(folder / "videos/a.mp4", frames[0].repeat(4, 1).repeat(4, 2))
    Image.fromarray(frames[0, 0]).save(folder / "videos/a.png")
    entry = {"title": "clip0, 1 → 2", "labels": ["source", "truth"]}
    io.write_json(folder / "videos/index.json", [entry | {"video": "a.mp4", "strip": "a.png"}])
    return folder


def scores_of(name, rng, level):
    psnr = level + list(NAMES).index(name) + rng.normal(size=3)
    metrics = ("ssim", "ssim_uniform7", "m_ssim_zero", "m_ssim_in")
    similar = {metric: np.clip(psnr / 40, 0, 1) for metric in metrics}
    return {**similar, "psnr": psnr, "m_psnr_zero": psnr + 8, "m_psnr_in": psnr - 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    first = make_run(root / "plain")
    second = make_run(root / "context", "tiny,context", seed=1, level=19.0)
    return first, second


def test_one_run_has_all_its_parts_in_its_own_directory(runs):
    path = report.write(runs[0])
    page = path.read_text()
    assert path == runs[0] / "report.html"
    for said in ("layer2 against layer1", "The worst 10 frames of layer3", "<h3>Flicker</h3>"):
        assert said in page
    for title in ("layer1: losses", "layer2: norms of", "layer3: psnr of", "by frame of the clip"):
        assert title in page, title
    assert page.count("data:video/mp4;base64,") == 1
    assert page.count("data:image/png;base64,") == 1 + 10 + 2


def test_several_runs_stand_side_by_side(runs, tmp_path):
    page = report.write(*runs, output=tmp_path / "both.html").read_text()
    assert page.count('class="group"') == 2 and "results of these runs" in page
    assert page.count("<section") == 2 and "all runs" in page
    assert page.count("<b>") == 7  # one best for each metric, over both runs


def test_rows_of_the_papers_stand_beside_the_runs_that_are_they(runs, tmp_path):
    page = report.write(*runs, output=tmp_path / "both.html").read_text()
    table = page[page.index("PSR-Net, Table 1") : page.index("PSR-Net, Table 3")]
    context = table[table.index("Context-based") : table.index("Common head")]
    common = table[table.index("Common head") : table.index("Separate heads")]
    assert "context: layer1" in context and '<td class="paper">0.811</td>' in context
    assert "layer1" not in common and '<td class="paper">0.795</td>' in common
    assert "plain: layer1" in table[table.index("Separate heads") :]
    assert "PG2" in page and '<td class="paper">16.90</td>' in page


def test_a_row_for_each_value_of_a_parameter_is_also_drawn_as_a_plot(tmp_path):
    """Fig. 7 of PSR-Net; the points lie where the values are."""
    shares = (".1", ".5", ".9")
    runs = [make_run(tmp_path / a, f"tiny,layer2,alpha={a}", level=20.0) for a in shares]
    page = report.write(*runs, output=tmp_path / "page.html").read_text()
    assert "Figure 7" in page and page.count("<!-- α -->") == 2  # SSIM, M-SSIM
    plain = report.write(runs[0], output=tmp_path / "one.html").read_text()
    assert "<!-- α -->" not in plain  # one value is no plot
    svg = figures.sensitivity("psnr", {0.9: 2.0, 0.1: 1.0, 0.5: 3.0}, {0.5: (2.5, 3.5)}, x="α")
    marker = r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: #1f77b4'
    points = re.findall(marker, svg)
    (x1, y1), (x5, y5), (x9, y9) = [(float(x), float(y)) for x, y in points[:3]]  # and the legend
    assert x5 - x1 == pytest.approx(x9 - x5, rel=1e-3) and x5 > x1
    assert (y1 - y5) / (y9 - y5) == pytest.approx(2.0, rel=1e-3) and y5 < y9


def test_videos_of_other_tools_are_reported_without_a_run(runs, tmp_path):
    (tmp_path / "tool").mkdir()
    for name in ("results.json", "clips.json", "frames.csv"):
        (tmp_path / "tool" / name).write_bytes((runs[0] / name).read_bytes())
    page = report.write(tmp_path / "tool").read_text()
    assert (
        "Scores" in page
        and "whole configuration" not in page
        and "trained" not in page.split("<section")[1]
    )


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [make_run(tmp_path / name / "run", seed=i) for i, name in enumerate("ab")]
    page = report.write(*folders, output=tmp_path / "page.html").read_text()
    assert "a/run" in page and "b/run" in page


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the directory of a run"):
        report.write(tmp_path)


@pytest.mark.parametrize(
    ("variant", "table", "labels"),
    [
        ("psrnet:tiny,common_head", "psrnet-table1", ["Common head"]),
        ("psrnet:tiny", "psrnet-table3", ["G, k = 1", "G, k = 2", "G, k = 3"]),
        ("psrnet:tiny", "psrnet-table2", []),
        ("psrnet:tiny,concat_all,alpha=1", "psrnet-table2", ["Concat all"]),
        ("internet:tiny,MS-b", "internet-table2", ["MS b)"]),
        ("internet:demo,SS4x-c", "internet-table2", ["SS4x c)"]),
        ("internet:tiny", "internet-table2", ["Ours (MS c)"]),
        ("internet:tiny", "psrnet-table1", []),
    ],
)
def test_a_run_finds_its_row_of_a_paper_at_any_scale(variant, table, labels):
    config = json.loads(config_lib.to_json(config_lib.load(variant)))
    found = paper_tables.matching_rows(paper_tables.find(table), config)
    assert list(found) == labels


@pytest.mark.skipif(not browser.find(), reason="no Chromium here (Debian: apt install chromium)")
def test_the_page_plays_in_a_browser_and_asks_for_nothing_else(runs, tmp_path):
    path = report.write(*runs, output=tmp_path / "both.html")
    with browser.page(tmp_path / "profile") as page:
        assert page.open(path.as_uri())
        assert page.wait("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        videos = "[...document.querySelectorAll('video')]"
        assert page.evaluate(f"{videos}.length") == 2
        page.evaluate(f"Promise.all({videos}.map(v => v.play())).then(() => 0)")
        assert page.wait(f"{videos}.every(v => v.videoWidth === {4 * SIZE} && v.currentTime > 0)")
        drawings = "[...document.querySelectorAll('svg')]"
        assert page.evaluate(f"{drawings}.length") > 10
        assert page.evaluate(f"{drawings}.every(s => s.getBoundingClientRect().width > 200)")
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert page.evaluate(wide)
        ink, paper = (
            page.evaluate(f"getComputedStyle(document.querySelector('{cell}')).color")
            for cell in ("table.papers td", "table.papers td.paper")
        )
        assert ink != paper
        assert page.errors == []
        assert {url.split(":")[0] for url in page.requests} <= {"file", "data"}
