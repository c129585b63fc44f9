"""What itk-impact promises of its filters and its metric, measured there and here with the same script.

python benchmarks/itk_promises.py [--venv DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools import RESULTS, ROOT, default_venv, peer_python, peer_versions, semreg_versions

from report import bullets, holds, machine, markdown_table, number, versions_line

ABOUT = """`python benchmarks/itk_promises.py`: one script, `run_promises.py`, in two environments; smooth random
textures of 16³ to 28³ voxels, small networks with fixed weights. Errors are means over the inner voxels on the worst
axis, slopes those of the worst distance. That of itk-impact is Dice, made for features that are not negative, which
these are not; its others are within 0.2 % of central differences.
"""


def main() -> int:
    """Measure in both environments, print, keep; 1 if a bar is missed here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=default_venv("impact"), help="the environment of itk-impact")
    given = parser.parse_args()
    peer = peer_python("impact", given.venv)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = (run(python, Path(folder)) for python in (peer, Path(sys.executable)))
    versions = peer_versions("impact", peer), semreg_versions()
    text = report(theirs, ours, versions)
    print(text)
    (RESULTS / "itk_promises.md").write_text(text, encoding="utf-8")
    return 0 if all(holds_for(entry) for entry in ours) else 1


def run(python: Path, models: Path) -> list[dict[str, Any]]:
    """What the script measures in an environment, one thread."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    command = [python, ROOT / "benchmarks" / "run_promises.py", models]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ) | threads)
    if done.returncode:
        raise SystemExit(f"{python} failed: {done.stderr[-2000:]}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def holds_for(entry: dict[str, Any]) -> bool:
    """Whether a figure is there and below its bar."""
    return entry["figure"] is not None and entry["figure"] < entry["bar"]


def shown(entry: dict[str, Any]) -> str:
    """A figure, and whether its bar is held; or what was raised."""
    return f"raises {entry['error']}" if entry["figure"] is None else f"{number(entry['figure'])} {verdict(entry)}"


def verdict(entry: dict[str, Any]) -> str:
    """Empty where the bar is held."""
    return "" if holds_for(entry) else f"({holds(truth=False)})"


def report(theirs: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]], versions: Sequence[Any]) -> str:
    """The page."""
    rows = [
        [own["name"], f"< {own['bar']:g} {own['unit']}".strip(), shown(other).strip(), shown(own).strip()]
        for other, own in zip(theirs, ours, strict=True)
    ]
    facts = machine(1) | {"itk-impact's environment": versions_line(versions[0])}
    facts["semreg's environment"] = versions_line(versions[1])
    return "\n".join([
        "# The promises of itk-impact's own tests, on both packages\n",
        ABOUT,
        bullets(facts),
        markdown_table(["promise", "bar", "itk-impact", "semreg"], rows),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
