"""Tables of results and what they were measured on. Knows nothing of registration."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(cells[i]) for cells in (header, *rows)) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *others in (header, rule, *rows):
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def number(value: float | None, digits: int = 3) -> str:
    """The value for a cell, a dash if there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def holds(truth: bool) -> str:
    """Whether a bar holds, for a cell."""
    return "holds" if truth else "MISSED"


def machine(threads: int | None) -> dict[str, str]:
    """Date, processor and threads, for the head of a report."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "CPU": f"{_cpu_model()}, {count} cores",
        "threads": "all" if threads is None else str(threads),
    }


def bullets(facts: Mapping[str, str]) -> str:
    """Names and values as a Markdown list."""
    return "".join(f"* {name}: {value}\n" for name, value in facts.items())


def versions_line(versions: Mapping[str, str]) -> str:
    """Names and versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
