"""Where semreg is, and what that installation of it can do."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

OPEN = "default"
"""The choice that leaves a setting open."""
PATIENCE_S = 60
"""How long an installation may take to describe itself; the first time Python compiles it."""


class NoSemreg(Exception):  # noqa: N818 - it says what there is not
    """A Python in which semreg cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Program:
    """A Python to run semreg in, and the variables of the environment it gets."""

    python: str
    environment: Mapping[str, str] | None = None
    """None: those of this process."""

    @classmethod
    def own(cls, python: str, environment: Mapping[str, str]) -> Program:
        """Slicer's Python with ``packages_folder`` before its own packages."""
        before = environment.get("PYTHONPATH", "")
        path = os.pathsep.join([str(packages_folder()), *([before] if before else [])])
        return cls(python, {**environment, "PYTHONPATH": path})

    def words(self, *words: str) -> list[str]:
        """The command line of ``semreg slicer`` with these words."""
        return [self.python, "-m", "semreg", "slicer", *words]

    def describe(self) -> Description:
        """What this installation offers (NoSemreg)."""
        try:
            done = subprocess.run(
                self.words("--xml"),
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoSemreg(f"expected a Python that runs, got {self.python}: {error}; choose another one") from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no words"])[-1]
            raise NoSemreg(
                f"expected a Python with semreg in it, got {self.python}: {last[:200]}; install semreg there, or "
                "choose another one"
            )
        return Description.of(done.stdout)


@dataclass(frozen=True)
class Description:
    """The parameters that ``semreg slicer`` has, and the values of its choices."""

    parameters: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, xml: str) -> Description:
        """From the XML that semreg prints (NoSemreg for anything else)."""
        try:
            root = ET.fromstring(xml)  # noqa: S314 - printed by the program that is about to be run
        except ET.ParseError as error:
            raise NoSemreg(f"expected the description of semreg in XML, got: {error}; install semreg again") from error
        found = [each for group in root.iter("parameters") for each in group if each.find("name") is not None]
        names = tuple(str(each.findtext("name")) for each in found)
        choices = {
            str(each.findtext("name")): tuple(str(value.text) for value in each.iter("element"))
            for each in found
            if each.tag == "string-enumeration"
        }
        return cls(names, choices)


def packages_folder() -> Path:
    """Where the module installs semreg for Slicer: beside Slicer's own packages, so that none of those is replaced."""
    return Path(sysconfig.get_paths()["purelib"]).parent / "semreg-packages"


def install_words(source: str) -> list[str]:
    """The words for ``pip install``: what it installs, and where to."""
    return ["--target", str(packages_folder()), "--upgrade", source]
