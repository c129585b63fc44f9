"""Runs many fuzzed command lines by hand: ``python tests/fuzz/fuzz.py --cases 5000 --kind transforms --seed 1``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_harness import counts, run

KINDS = sorted(path.stem.removeprefix("fuzz_") for path in Path(__file__).parent.glob("fuzz_*.py"))
NO_KINDS = ("harness", "kinds", "mutations", "traps")
AT_ONCE = 500


def main() -> int:
    """Run, print each case that ends wrongly as soon as it is known, and the counts at the end."""
    kinds = [name for name in KINDS if name not in NO_KINDS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--kind", action="append", choices=kinds, help="all by default; repeatable")
    parser.add_argument("--seed", type=int, default=1, help="another one makes other cases")
    parser.add_argument("--keep", type=Path, help="folder for the files of the cases that end wrongly")
    given = parser.parse_args()
    wrong = 0
    for name in given.kind or kinds:
        kind = importlib.import_module(f"fuzz_{name}").KIND
        cases, shared, outcomes = kind.cases(given.cases, given.seed), kind.shared(), []
        for start in range(0, len(cases), AT_ONCE):
            found = run(cases[start : start + AT_ONCE], shared, kind.modules)
            outcomes += found
            for number, each in enumerate(found, start):
                if each.fault:
                    last = " ".join(each.said.split())[-200:]
                    say(f"{each.case.name}: semreg {' '.join(each.case.arguments)}: {each.fault}; {last}")
                    keep(given.keep, name, number, each.case.files)
        wrong += sum(bool(each.fault) for each in outcomes)
        say(f"{name}: {len(outcomes)} cases: {counts(outcomes)}")
    return int(wrong > 0)


def say(line: str) -> None:
    """One line on the standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def keep(folder: Path | None, kind: str, number: int, files: dict[str, bytes]) -> None:
    """Keep the files of one case, to run it by itself."""
    for name, data in files.items() if folder is not None else ():
        place = folder / f"{kind}-{number}" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
