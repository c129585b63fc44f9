"""What a person at a terminal sees; the same functions write plain lines into files."""

from __future__ import annotations

import logging
import math
import os
import pty
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from semreg.runtime.events import Step
from semreg.runtime.progress import REGISTER, Progress
from semreg.runtime.terminal import Download, show_log, show_rows, show_sentences, show_table


class Screen:
    """A pseudo-terminal of 60 columns."""

    def __init__(self) -> None:
        """Both of its ends."""
        self.ours, self.theirs = pty.openpty()
        self.stream = os.fdopen(self.theirs, "w", encoding="utf-8")

    @contextmanager
    def on(self) -> Iterator[None]:
        """Standard output and error lead here."""
        with redirect_stdout(self.stream), redirect_stderr(self.stream):
            yield

    def text(self) -> str:
        """All that was shown so far."""
        self.stream.flush()
        shown = b""
        while select.select([self.ours], [], [], 0.1)[0]:
            shown += os.read(self.ours, 1 << 16)
        return shown.decode()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """A terminal, whatever the tests were started from."""
    made = Screen()
    for name, value in (("COLUMNS", "60"), ("LINES", "24"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    yield made
    made.stream.close()
    os.close(made.ours)


LONG = "the images were brought together by a rotation about the vertical axis and by a shift of a few millimetres"


def test_sentences_are_wrapped_on_a_terminal(screen: Screen) -> None:
    """Each sentence begins with a bullet and breaks between words."""
    with screen.on():
        show_sentences([LONG, "short"])
    lines = screen.text().splitlines()
    assert lines[0].startswith("• the images")
    assert lines[1].startswith("  ")
    assert lines[-1] == "• short"
    assert max(map(len, lines)) <= 60
    assert " ".join(line.lstrip("• ") for line in lines[:-1]) == LONG


def test_rows_stand_in_columns_on_a_terminal(screen: Screen) -> None:
    """Names and values stand beside each other, the note below, and nothing is left out."""
    with screen.on():
        show_rows([("similarity", "0.3 -> 0.1"), ("files", "a.h5")], "p -> q")
    lines = screen.text().splitlines()
    for line, word in ((0, "similarity"), (0, "0.3 -> 0.1"), (1, "a.h5"), (2, "p -> q")):
        assert word in lines[line]
    assert lines[0].index("0.3") == lines[1].index("a.h5")


def test_tables_have_titles_on_a_terminal(screen: Screen) -> None:
    """A table has its titles and its values below them."""
    with screen.on():
        show_table(["name", "licence"], [["M730", "Apache-2.0"], ["MeshNet", "MIT"]])
    text = screen.text()
    assert "\t" not in text
    for word in ("name", "licence", "M730", "Apache-2.0", "MeshNet", "MIT"):
        assert word in text


def steps() -> Iterator[Step]:
    """A short registration: a stage that is told when it was done, and one of two levels."""
    yield Step(stage="prepare", level=1, levels=1, iteration=1, iterations=1, value=math.nan, seconds=0.2)
    for level, values in ((1, (0.5, 0.25)), (2, (0.2, 0.125))):
        for iteration, value in enumerate(values, 1):
            yield Step(
                stage="refine", level=level, levels=2, iteration=iteration, iterations=9, value=value, seconds=0.1
            )


def test_a_bar_moves_on_a_terminal(screen: Screen) -> None:
    """The whole is one bar, with the stage and its level; a stage that is done leaves a line, a warning its own."""
    with screen.on():
        show_log(quiet=False, verbose=False)
        with Progress(quiet=False, stages=REGISTER, title="registering b onto a") as progress:
            with progress.stage("read"):
                logging.getLogger("semreg").warning("take care")
            for step in steps():
                progress(step)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.text())
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    assert lines[0] == "registering b onto a", lines
    assert lines.count(lines[0]) == 1
    assert "warning: take care" in lines
    assert any(re.fullmatch(r"prepare +0\.2 s", line) for line in lines)
    assert any(re.fullmatch(r"refine +\d+\.\d s +distance 0\.125, 4 steps", line) for line in lines)
    assert any(line.startswith("refine") and "%" in line for line in lines)
    shares = [int(found) for found in re.findall(r"(\d+) %", text)]
    assert shares == sorted(shares)


def test_a_share_that_is_told_moves_the_bar(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a stage says which share of it is done, the bar stands there; what is tried is counted, but is no step.

    At the end the line has the seconds of the stage itself, not those of what comes next.
    """
    monkeypatch.setenv("COLUMNS", "80")
    told = Step(stage="align", level=1, levels=2, iteration=1, iterations=7, value=math.nan, seconds=1.0, done=0.5)
    found = replace(told, iteration=1, iterations=30, value=0.25, seconds=2.0, done=0.75)
    with screen.on(), Progress(quiet=False, stages={"read": 20, "align": 60, "features": 20}) as progress:
        with progress.stage("read"):
            progress.at(0.5)
            assert progress._share == pytest.approx(0.1)
        for step in (told, found, replace(found, value=0.125, seconds=2.5, done=1.0)):
            progress(step)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.text())
    assert re.search(r"align .* 50 % .*1 of 7", text)
    assert re.search(r"align .* 65 % .*distance 0\.25", text)
    assert re.search(r"align +2\.5 s +distance 0\.125, 2 steps", text)


def test_shares_are_told_to_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    """Another program's bar gets the share of the whole and the stage, without a terminal and with nothing printed."""
    told: list[tuple[float, str]] = []
    with Progress(quiet=True, stages={"read": 20, "refine": 80}, on_share=lambda *each: told.append(each)) as progress:
        with progress.stage("read"):
            progress.at(0.5)
        for step in steps():
            progress(step)
    assert (pytest.approx(0.1), "read") in told
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert told[-1] == (1.0, "refine")
    assert capsys.readouterr().err == ""


def test_a_stage_has_a_line_in_a_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a terminal what is done is said first, then one line a stage; a log file has them with the time."""
    show_log(quiet=False, verbose=False, file=tmp_path / "run.log")
    with Progress(quiet=False, stages=REGISTER, title="registering b onto a") as progress:
        assert not capsys.readouterr().err
        for step in steps():
            progress(step)
    logging.getLogger("semreg").debug("a detail")
    show_log(quiet=False, verbose=False)
    title, first, second = capsys.readouterr().err.splitlines()
    assert title == "registering b onto a"
    assert first.split() == ["prepare", "0.2", "s"]
    assert second.startswith("refine")
    assert second.endswith("distance 0.125, 4 steps")
    written = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:,]+ INFO prepare +0\.2 s$", written, re.MULTILINE)
    assert "DEBUG a detail" in written


def test_a_bar_does_not_go_back(screen: Screen) -> None:
    """Whatever is passed over, the bar only grows, and it is at its end where the run is."""
    with screen.on(), Progress(quiet=False, stages=REGISTER) as progress:
        for name in ("read", "write", "refine", "page"):
            with progress.stage(name):
                before = progress._share
            assert progress._share >= before
        assert progress._share == pytest.approx(1.0)


def test_a_download_shows_its_name_on_a_terminal(screen: Screen) -> None:
    """The file that comes is named with how much of it has come."""
    with screen.on(), Download("M730.pt", quiet=False) as download:
        download(500_000, 1_000_000)
        download(1_000_000, 1_000_000)
    assert "M730.pt" in screen.text()


def test_nothing_moves_where_it_is_quiet(screen: Screen) -> None:
    """Quiet is quiet, at a terminal too."""
    with screen.on(), Progress(quiet=True) as progress, Download("M730.pt", quiet=True) as download:
        progress(Step(stage="refine", level=1, levels=1, iteration=1, iterations=2, value=0.25, seconds=0.1))
        download(1, 2)
    screen.stream.write("end")
    assert screen.text() == "end"
