"""Figures, links, pictures and citations of the README and the guides: true, not stale, not broken."""

from __future__ import annotations

import json
import re
import runpy
import unicodedata
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from test_readme import FEATURES, README, ROOT, page

RESULTS = ROOT / "benchmarks" / "results"
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "native/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
DRAWINGS = sorted((ROOT / "docs" / "concepts").glob("*.svg"))


def table(text, first):
    """The rows of the table whose header begins with the cell ``first``: lists of cells, without ** and spaces."""
    found = re.search(rf"^\| *{re.escape(first)} *\|.*\n\|[-:| ]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    assert found, first
    return [[cell.strip(" *") for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()]


def results(name):
    """What a benchmark wrote."""
    return (RESULTS / name).read_text(encoding="utf-8")


def agrees(said, measured):
    """Whether a figure as it is printed is that number, rounded to the digits it has."""
    digits = len(said.partition(".")[2])
    return abs(float(said) - measured) <= 0.5000001 * 10**-digits


def test_figures_of_real_pairs_are_those_measured():
    """The README's table of pairs is the means of benchmarks/results/peers.md, and so are its sentences about them."""
    text = results("peers.md")
    measured = table(text, "mean of group")
    for said, row in zip(table(README, "mean of"), measured, strict=True):
        assert (said[0].split(",")[0].replace("brain", "oasis"), said[1]) == (row[0], row[1])
        for figure, there in zip(said[2:], row[2:], strict=True):
            assert (figure, there) == ("–", "not supported") or agrees(figure, float(there)), said
    folded, cpu, memory = (
        table(text[text.index(title) :], "pair") for title in ("## Folded", "CPU seconds:", "Peak memory, GB:")
    )
    assert len(folded) == 14
    assert all(float(row[1]) == 0 for row in folded)
    assert [row[0] for row in memory if row[3] != min(row[1:], key=number)] == ["oasis"]
    (brain,) = ([float(figure) for figure in row[1:]] for row in cpu if row[0] == "oasis")
    assert [round(brain[0]), round(min(brain[1:])), round(max(brain[1:]))] == [19, 81, 197]
    small = np.mean([[float(figure) for figure in row[1:4]] for row in cpu if row[0].startswith("hippo")], axis=0)
    assert small.round().tolist() == [5, 4, 3]


def number(figure):
    """A figure, or infinity for a word."""
    return float(figure) if figure[:1].isdigit() else np.inf


def test_figures_of_the_phantom_are_those_measured():
    """The README's table of the phantom is the medians of benchmarks/results/compare.json."""
    said = table(README, "phantom")
    sizes = re.split(r"^## ", results("compare.md"), flags=re.MULTILINE)[1:]
    assert len(said) == 3 * len(sizes)
    for number, text in enumerate(sizes):
        rows = {row[0]: row for row in table(text, "median")}
        errors = next(row for name, row in rows.items() if name.startswith("TRE mean"))
        for line, row in zip(
            said[3 * number : 3 * number + 3], (rows["CPU s"], rows["peak above torch, GB"], errors), strict=True
        ):
            assert all(agrees(figure, float(there)) for figure, there in zip(line[2:], row[1:4], strict=True)), line
        assert errors[0].partition("(")[2] == said[3 * number + 2][1].partition("(")[2]
    assert json.loads(results("compare.json"))["facts"]["convexAdam"].startswith("convexAdam 0.2.0")


def test_figures_of_networks_are_those_measured():
    """The tables of networks in docs/features.md are those of benchmarks/results/networks.md, pair by pair."""
    sections = dict(part.split(":", 1) for part in results("networks.md").split("\n### ")[1:])
    measured = {pair: {row[0]: float(row[1]) for row in table(text, "features")} for pair, text in sections.items()}
    for first in ("features, mm", "features, Dice"):
        (header,) = re.findall(rf"^\| *{first} *\|.*$", FEATURES, flags=re.MULTILINE)
        pairs = [cell.strip() for cell in header.strip("|").split("|")][1:]
        for name, *figures in table(FEATURES, first):
            for pair, figure in zip(pairs, figures, strict=True):
                assert agrees(figure, measured[pair][name]) if figure else name not in measured[pair], (name, pair)


def test_figures_of_the_metric_are_those_measured():
    """The table of the metric in docs/itk.md is that of benchmarks/results/v4.md."""
    measured = table(results("v4.md"), "CPU µs a point")
    for said, row in zip(table(page("itk.md"), "mode, distance"), measured, strict=True):
        assert ", ".join(said[0].split(", ")[:2]) == row[0]
        assert all(agrees(figure, float(there)) for figure, there in zip(said[1:], row[1:], strict=True)), said


@pytest.mark.parametrize("name", ["choose.md", "comparison.md", "limits.md"])
def test_no_figure_comes_from_nowhere(name):
    """Each figure with two decimals or more on these pages is one of a result, a preset or a page that prints it."""
    sources = [*RESULTS.glob("*.md"), *(ROOT / "src/semreg/presets").glob("*.toml")]
    sources += [ROOT / "docs" / each for each in ("configuration.md", "uncertainty.md")]
    measured = [float(x) for path in sources for x in re.findall(r"\d+\.\d+", path.read_text(encoding="utf-8"))]
    for figure in re.findall(r"(?<![\w.:/])\d+\.\d{2,}(?![\w./])", page(name)):
        assert any(agrees(figure, number) for number in measured), figure


def anchors(path):
    """What the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    plain = [re.sub(r"[`*]|\]\([^)]*\)", "", title) for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)]
    words = [re.sub(r"[^\w\- ]", "", unicodedata.normalize("NFC", title)).strip().lower() for title in plain]
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    """Every link to a file of the project is to one that exists, and to a heading that it has."""
    path = ROOT / name
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        generated = there == ROOT / "docs/reference/command_line.md"  # made when the site is built
        assert generated or there.exists(), target
        assert not anchor or there.suffix != ".md" or anchor in anchors(there), target


def opened(path):
    """A picture in grey values, (rows, columns)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_pictures_are_there():
    """The pictures of the documentation are sharp, no stubs, and small enough for a page."""
    for name, least, most_kb in (("hero.png", (700, 1200), 400), ("features.png", (300, 1200), 200)):
        path = ROOT / "docs/pictures" / name
        picture = opened(path)
        assert all(n >= m for n, m in zip(picture.shape, least, strict=True)), name
        assert path.stat().st_size < most_kb * 1000
        assert picture.std() > 30
    assert "docs/pictures/hero.png" in README


def test_pictures_can_be_drawn_again(tmp_path):
    """The script that drew the pictures runs, here on small phantoms."""
    runpy.run_path(str(ROOT / "docs/pictures/make.py"))["main"](["-o", str(tmp_path), "--size", "32", "--dpi", "40"])
    assert all(opened(tmp_path / name).std() > 20 for name in ("hero.png", "features.png"))


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_drawings_can_be_read(path):
    """A drawing is sound SVG with a title and a description, letters of 12 px and more, and a page shows it."""
    text = path.read_text(encoding="utf-8")
    drawing = ET.fromstring(text)  # noqa: S314 - ours
    kinds = {child.tag.partition("}")[2] for child in drawing}
    assert {"title", "desc", "style", "rect"} <= kinds
    assert float(drawing.get("width")) <= 700
    assert min(map(float, re.findall(r"font-size: (\d+)px", text))) >= 12
    assert "href" not in text
    shown = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    assert any(f"{path.name})" in each.read_text(encoding="utf-8") for each in shown)


def test_citation_is_sound():
    """CITATION.cff has what its format requires, names no person as author, and the README cites the same methods."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == "semreg"
    assert cited["authors"] == [{"name": "The semreg developers"}]
    assert cited["license"] == "Apache-2.0"
    assert cited["message"]
    flat = " ".join(README.split())
    for reference in cited["references"]:
        assert reference["title"] in flat
        assert ", ".join(author["family-names"] for author in reference["authors"]) in flat
        assert reference["type"] in {"article", "conference-paper"}
        assert str(reference["year"]) in flat or "arXiv:2503.24121" in flat


def test_every_preset_is_among_the_choices():
    """docs/choose.md has a row for every preset, and names no other."""
    from semreg.presets import preset_names

    rows = " ".join(row[1] for row in table(page("choose.md"), "pair"))
    named = set(re.findall(r"`([a-z0-9-]+)`", rows)) - {"--quality"}
    assert named == set(preset_names()) - {"fast", "quality"}


def test_every_distance_is_a_choice():
    """The distances that docs/choose.md recommends are those that the settings know."""
    from semreg.distances import DISTANCES

    named = {name for row in table(page("choose.md"), "features") for name in re.findall(r"`(\w+)`", row[1])}
    assert named
    assert named <= set(DISTANCES)
