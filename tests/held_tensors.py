"""How many bytes of tensors a piece of work holds: counted by torch, whatever allocator and system keep besides."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch


def peak_bytes_of(work: Callable[[], object]) -> int:
    """The most bytes that tensors on the CPU which ``work`` makes take at once, those within operators included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes))
