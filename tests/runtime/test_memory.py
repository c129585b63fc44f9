"""Amounts of memory: how they are written, and what the process says of itself."""

from __future__ import annotations

import resource
import subprocess
import sys

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semreg.errors import ConfigError
from semreg.runtime import memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3GB", 3_000_000_000),
        ("512 MiB", 512 * 2**20),
        ("2e9", 2_000_000_000),
        ("1.5gib", 3 * 2**29),
        (" .5 TB ", 500_000_000_000),
        ("7kb", 7_000),
        ("1", 1),
    ],
)
def test_amounts_are_read(text, expected):
    """Units of ten and of two, any case, with and without a space; a bare number is bytes."""
    assert memory.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "3 G B", "3 parsecs", "-3GB", "0", "0GB", "1e-3GB", "3GBs", "nan", "1e999"])
def test_what_is_no_amount_is_refused(text):
    """What is no positive amount is an error that shows it and how to write one."""
    with pytest.raises(ConfigError, match="such as 3GB or 512MiB, got"):
        memory.parse_bytes(text)


@given(st.integers(1, 10**6), st.sampled_from(sorted(memory.UNITS)))
def test_amounts_scale_with_their_unit(number, unit):
    """A whole number of a unit is that many times the unit."""
    assert memory.parse_bytes(f"{number} {unit.lower()}") == number * memory.UNITS[unit]


def in_a_process(work: str) -> list[float]:
    """What ``work`` prints, a number a line, in a process of its own: here other threads allocate too."""
    start = "import torch\nfrom semreg.runtime import memory\ntorch.set_num_threads(1)\ntorch.ones(1 << 24).add_(1)\n"
    start += "memory.give_back_memory()\nbefore = memory.held_bytes()\n"
    done = subprocess.run([sys.executable, "-c", start + work], capture_output=True, text=True, check=True)
    return [float(line) / 2**20 for line in done.stdout.split()]


def test_what_is_held_grows_and_shrinks():
    """A tensor that is filled shows in what is held and in the peak, and its end only in what is held."""
    during, after, peak = in_a_process("""
block = torch.ones(1 << 24)  # 64 MiB
during = memory.held_bytes()
del block
memory.give_back_memory()
print(during - before, memory.held_bytes() - before, memory.peak_bytes() - during, sep="\\n")
""")
    assert 0.9 * 64 < during < 1.3 * 64
    assert after < 0.3 * 64
    assert peak >= -1  # the kernel counts in batches of pages


def test_a_peak_is_watched():
    """The most that is held for a while is seen, and not what was held before."""
    quiet, peak = in_a_process("""
import time
with memory.watched_peak() as quiet:
    pass
with memory.watched_peak() as peak:
    block = torch.ones(1 << 24)  # 64 MiB
    for _ in range(60_000):  # a busy machine may keep the watcher from looking for a while
        if peak() - before > 0.9 * block.nbytes:
            break
        time.sleep(0.01)
    del block
print(quiet() - before, peak() - before, sep="\\n")
""")
    assert quiet < 16
    assert 0.9 * 64 < peak < 1.3 * 64


def test_what_is_available_is_less_than_the_machine_has():
    """What can still be had is positive and below what the machine has."""
    assert 0 < memory.available_bytes() < psutil.virtual_memory().total


@pytest.mark.parametrize(("limit", "used", "left"), [("700000", "300000", 400_000), ("7", "9", 0)])
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, limit, used, left):
    """Where a control group may hold less than the machine has, what it has left is all there is, and never below 0."""
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(used)
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    assert memory.available_bytes() == left


def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path, monkeypatch):
    """``max`` is no number: then the machine alone counts."""
    (tmp_path / "memory.max").write_text("max")
    (tmp_path / "memory.current").write_text("300000")
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    assert memory.available_bytes() > 10**6


def test_a_limit_of_addresses_counts():
    """What ``ulimit -v`` leaves is all there is."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + (64 << 20), before[1]))
    try:
        assert 0 <= memory.available_bytes() <= 64 << 20
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Exception thrown in SimpleITK: std::bad_alloc"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("expected a tensor"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    """However torch says that memory ran out, it is seen; other errors are not taken for it."""
    assert memory.is_out_of_memory(error) is expected
