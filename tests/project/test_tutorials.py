"""The tutorials run as they are written: every block in order, in one folder a page, and print what the page shows.

Blocks of Python share their names, as in one session. A block of ``sh`` holds commands of semreg. A block after
``<!-- file NAME -->`` is a file that the reader writes. A block after ``<!-- output, numbers within N % -->`` is what
the block before it prints: its lines in this order, others between them where it says …, words to the letter, and
numbers within N % or five of their last digits, whichever is more.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from semreg.cli import main

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
PAGES = ("brain", "ct_mr", "two_d", "cohort", "itk_script", "own_model", "own_metric", "large")
NEEDS_ITK = ("itk_script", "own_metric")
NEEDS_ZARR = ("large",)

BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^>]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: ``mark`` is the comment before it."""

    mark: str
    language: str
    code: str


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a text, in order."""
    found = [Block(match["mark"] or "", match["language"], match["code"]) for match in BLOCK.finditer(page)]
    assert len(found) * 2 == len(re.findall(r"^```", page, flags=re.MULTILINE))  # none is overlooked
    return found


def run(block: Block, names: dict[str, object]) -> str:
    """What a block prints."""
    said = io.StringIO()
    with redirect_stdout(said):
        if block.language == "python":
            exec(compile(block.code, "tutorial", "exec"), names)  # noqa: S102 - the page is ours
        else:
            for line in block.code.replace("\\\n", " ").splitlines():
                semreg(line)
    return said.getvalue()


def semreg(line: str) -> None:
    """A command of semreg, in this process: each start of Python would cost seconds."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "semreg", line
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code in (0, None), line


def same_line(shown: str, said: str, share: float) -> bool:
    """Whether a printed line has the words that are shown, and numbers as near as ``share`` or five last digits."""
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", said).split():
        return False
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(said), strict=True):
        last = 10.0 ** -len(a.partition(".")[2]) if "." in a else 0.0
        if abs(float(a) - float(b)) > max(share * abs(float(a)), 5 * last):
            return False
    return True


def missing(shown: str, said: str, share: float) -> str | None:
    """The first line that is shown and was not said in its place; None if all were."""
    rest = iter(said.splitlines())
    skip = False
    for line in filter(None, map(str.strip, shown.splitlines())):
        if line == "…":
            skip = True
            continue
        candidates = rest if skip else take_one(rest)
        if not any(same_line(line, other, share) for other in candidates):
            return line
        skip = False
    return None


def take_one(lines: Iterator[str]) -> Iterator[str]:
    """The next line that is not empty, alone."""
    for line in lines:
        if line.strip():
            yield line
            return


@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_runs(page, tmp_path, monkeypatch):
    """Every block of the page runs, in order, and prints what the page shows."""
    if page in NEEDS_ITK:
        pytest.importorskip("itk", reason="needs the package itk")
        pytest.importorskip("semreg_itkv4", reason="needs the package semreg-itkv4: make native")
    if page in NEEDS_ZARR:
        pytest.importorskip("zarr", reason="the extra semreg[zarr] is not installed")
        pytest.importorskip("ome_zarr", reason="the extra semreg[zarr] is not installed")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    said = ""
    for block in blocks_of((TUTORIALS / f"{page}.md").read_text(encoding="utf-8")):
        if tolerance := re.fullmatch(r"output, numbers within (\d+) %", block.mark):
            assert missing(block.code, said, int(tolerance[1]) / 100) is None, said
        elif file := re.fullmatch(r"file (\S+)", block.mark):
            Path(file[1]).write_text(block.code, encoding="utf-8")
        else:
            assert not block.mark
            assert block.language in ("python", "sh")
            said = run(block, names)


def test_every_page_is_run():
    """There is no tutorial that no test runs."""
    assert {path.stem for path in TUTORIALS.glob("*.md")} == set(PAGES)


def test_pictures_are_small_and_shown():
    """Each picture is on a page, each page's pictures exist, none is above 200 KB, all below 1.5 MB."""
    text = "".join(path.read_text(encoding="utf-8") for path in TUTORIALS.glob("*.md"))
    named = set(re.findall(r"!\[[^]]+\]\((pictures/[^)]+)\)", text))
    sizes = {f"pictures/{path.name}": path.stat().st_size for path in (TUTORIALS / "pictures").iterdir()}
    assert named == set(sizes)
    assert max(sizes.values()) < 200_000
    assert sum(sizes.values()) < 1_500_000


def test_the_comparison_can_fail():
    """Another word, a number too far off, a line too many or out of order is noticed; … and small differences pass."""
    said = "a: 1.00 mm\nb: 20 of 20\nc: PASS\n"
    assert missing("a: 1.04 mm\n…\nc: PASS\n", said, 0.1) is None
    assert missing("a: 1.00 mm\nc: PASS\n", said, 0.1) == "c: PASS"
    assert missing("a: 1.20 mm\n", said, 0.1) == "a: 1.20 mm"
    assert missing("…\nc: REVIEW\n", said, 0.1) == "c: REVIEW"
    assert missing("b: 20 of 23\n", "b: 20 of 20\n", 0.1) == "b: 20 of 23"
    assert missing("c: PASS\na: 1.00 mm\n", said, 0.1) == "c: PASS"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Every link of a page to a file of the project is to one that exists, and to a heading that is there."""
    path = TUTORIALS / f"{page}.md"
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        file, _, heading = target.partition("#")
        assert (path.parent / file).is_file(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", (path.parent / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}, target
