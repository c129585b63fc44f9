"""Where the time goes: registers a phantom pair in this process and prints what each stage took.

python stages.py [SIZE] [--threads 1] [--set name=value]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from measure import RSS_UNIT
from phantoms import phantom_pair

import report

Times = dict[str, tuple[float, float]]
"""Stage → wall and CPU seconds."""


def main() -> None:
    """Make the pair elsewhere, then import, read, register and write here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?", default=128, help="voxels an axis")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="try a setting")
    given = parser.parse_args()
    pair = phantom_pair(given.size)
    times: Times = {}
    memory = {"start": peak_gb()}
    for name in ("torch", "SimpleITK", "semreg.registration.pipeline", "semreg.io.files"):
        with timed(times, f"import {name}"):
            import_module(name)
        memory[f"import {name}"] = peak_gb()

    from semreg import RegistrationConfig, register
    from semreg.io import files
    from semreg.runtime.settings import override

    config = RegistrationConfig()
    for setting in given.set:
        config = override(config, setting)
    files.limit_threads(given.threads)
    with timed(times, "read"):
        fixed, moving = (files.read_image(pair / f"{name}.nii.gz") for name in ("fixed", "moving"))
    memory["read"] = peak_gb()
    whole: Times = {}
    with timed(whole, "register"):
        result = register(fixed.volume, moving.volume, config=config, device="cpu")
    stages = {name: (taken.seconds, taken.cpu_seconds) for name, taken in result.record.timings.items()}
    times |= stages
    rest = [whole["register"][i] - sum(stage[i] for stage in stages.values()) for i in range(2)]
    times["rest of register"] = (rest[0], rest[1])
    memory["rest of register"] = peak_gb()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        with timed(times, "write warped"):
            files.write_image(result.warped, out / "warped.nii.gz", moving.pixel_type)
        with timed(times, "write field"):
            files.write_field(result.field, out / "field.nii.gz")
        with timed(times, "write transform"):
            files.write_transform(result.field, out / "transform.h5")
    memory["write transform"] = peak_gb()
    print(report.bullets(report.machine(given.threads) | {"size": f"{given.size}³ voxels"}))
    print(table(times, memory))


@contextmanager
def timed(times: Times, name: str) -> Iterator[None]:
    """Keep the wall and CPU seconds of the block under ``name``."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    times[name] = (time.perf_counter() - wall, time.process_time() - cpu)


def peak_gb() -> float:
    """The largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e9


def table(times: Times, memory: dict[str, float]) -> str:
    """One stage a line, with its share of the CPU time and the peak memory until its end where that was read."""
    total = [sum(taken[i] for taken in times.values()) for i in range(2)]
    rows = [
        [name, f"{wall:.2f}", f"{cpu:.2f}", f"{100 * cpu / total[1]:.1f}", report.number(memory.get(name), 2)]
        for name, (wall, cpu) in times.items()
    ]
    rows.append(["all", f"{total[0]:.2f}", f"{total[1]:.2f}", "100.0", f"{peak_gb():.2f}"])
    return report.markdown_table(["stage", "wall s", "CPU s", "% of CPU", "peak so far, GB"], rows)


if __name__ == "__main__":
    main()
