"""What starting costs beside bare Python, and preparing and judging a pair beside registering it.

    python startup.py [--runs 5]

All figures are CPU seconds of one thread and medians; the bars are ratios, so that they hold on any machine. Leaves
with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import measure
import tools

import report

SIZE = 64
"""Voxels an axis of the phantom pair that is prepared, registered and judged."""
BARS = {
    "import semreg": ("bare Python", 3.0),
    "semreg --help": ("bare Python", 40.0),
    "semreg register --help": ("bare Python", 40.0),
    "preparing": ("registering", 0.1),
    "judging": ("registering", 0.5),
}
"""What each is measured by, and how many times that it may cost."""


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each; the median counts")
    runs = parser.parse_args().runs
    seconds = starts(runs) | stages(runs)
    rows, good = [], True
    for name, (beside, most) in BARS.items():
        ratio = seconds[name] / seconds[beside]
        good &= ratio <= most
        figures = [report.number(seconds[each]) for each in (name, beside)]
        rows.append([name, figures[0], beside, figures[1], f"{ratio:.2f}", f"{most:g}", report.holds(ratio <= most)])
    print(report.bullets(report.machine(1)))
    print(report.markdown_table(["what", "CPU s", "beside", "CPU s", "ratio", "at most", "bar"], rows))
    sys.exit(0 if good else 1)


def starts(runs: int) -> dict[str, float]:
    """CPU seconds of processes that do next to nothing, in turn."""
    commands = {
        "bare Python": ["-c", "pass"],
        "import semreg": ["-c", "import semreg"],
        "semreg --help": ["-m", "semreg", "--help"],
        "semreg register --help": ["-m", "semreg", "register", "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):
        for name, command in commands.items():
            usage = measure.measure([sys.executable, *command], threads=1, log=tools.OUT / "startup.txt")
            taken[name].append(usage.cpu_seconds)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}  # the first one fills caches


def stages(runs: int) -> dict[str, float]:
    """CPU seconds of what is done to a CT-like and MR-like phantom pair, in this process."""
    import semreg
    from semreg.io.files import limit_threads
    from semreg.phantom import make_pair
    from semreg.preprocess.image_pair import prepare_pair
    from semreg.quality.evidence import collect_evidence

    limit_threads(1)
    pair = make_pair(size=SIZE, seed=31)
    config = semreg.RegistrationConfig()
    field = pair.true_field()
    work: dict[str, Callable[[], object]] = {
        "preparing": lambda: prepare_pair(pair.fixed, pair.moving, None, None, config),
        "registering": lambda: semreg.register(pair.fixed, pair.moving, config=config, device="cpu"),
        "judging": lambda: collect_evidence(pair.fixed, pair.moving, field),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs + 1):
        for name, act in work.items():
            begun = time.process_time()
            act()
            taken[name].append(time.process_time() - begun)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


if __name__ == "__main__":
    main()
