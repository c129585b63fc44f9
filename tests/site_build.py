"""The documentation built once a test run, and its pages taken apart."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there: whoever asks another host during the build fails."""


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site into ``folder``, every warning an error, with no way to another host."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def built(factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, which is built by whoever asks first."""
    folder = factory.getbasetemp() / "site"
    if not folder.exists():
        done = build(folder)
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr
    return folder


class Taken(HTMLParser):
    """What a page has: anchors, links, what it loads, and the text of its paragraphs."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.classes: set[str] = set()
        self.paragraphs: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the attributes that lead somewhere."""
        named = {name: value or "" for name, value in attrs}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        self.classes |= set(named.get("class", "").split())
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        if tag == "link" and named.get("rel") not in {"canonical", "next", "prev"}:
            self.loaded.append(named.get("href", ""))
        if tag != "a" and "src" in named:
            self.loaded.append(named["src"])
        if tag == "p":
            self.depth += 1
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        """Leave a paragraph."""
        self.depth -= tag == "p"

    def handle_data(self, data: str) -> None:
        """Text of a paragraph."""
        if self.depth:
            self.paragraphs[-1] += data


@cache
def taken(path: Path) -> Taken:
    """One page taken apart."""
    page = Taken()
    page.feed(path.read_text(encoding="utf-8"))
    return page
