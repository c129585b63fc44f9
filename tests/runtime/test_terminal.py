"""What a person at a terminal sees; the same functions write plain lines into files."""

from __future__ import annotations

import os
import pty
import select
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from semreg.runtime.events import Step
from semreg.runtime.terminal import Download, Progress, show_rows, show_sentences, show_table


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


def test_a_bar_moves_on_a_terminal(screen: Screen) -> None:
    """Stage, level and distance are shown while it runs, and at the end no line is left half-written."""
    with screen.on(), Progress(quiet=False) as progress:
        for iteration in (1, 2):
            progress(
                Step(stage="refine", level=1, levels=2, iteration=iteration, iterations=2, value=0.25, seconds=0.1)
            )
        progress(Step(stage="refine", level=2, levels=2, iteration=1, iterations=5, value=0.125, seconds=0.1))
    text = screen.text()
    assert "refine" in text
    assert "0.125" in text
    assert text.endswith("\n") or "\x1b[?25h" in text  # the cursor is back


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
