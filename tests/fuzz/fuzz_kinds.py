"""What every kind of fuzzed input is made of: seeds, hand-made cases, and mutations of the seeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzz_harness import Case
from fuzz_mutations import mutated


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A file that is right, and what is done with it."""

    name: str
    """Of the file, in the folder where the command runs."""
    data: bytes
    arguments: tuple[tuple[str, ...], ...]
    """Command lines that read it: one of them is taken for each case."""
    outputs: tuple[str, ...] = ()
    beside: dict[str, bytes] | None = None
    """Other files that it needs, which stay as they are."""
    text: bool = True


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of input."""

    name: str
    shared: Callable[[], dict[str, bytes]]
    """What lies in ``../shared``."""
    seeds: Callable[[], Sequence[Seed]]
    known: Callable[[], Sequence[Case]]
    """Cases made by hand, each of which once went wrong or may."""
    modules: tuple[str, ...] = ()
    """What is loaded once for all cases."""

    def cases(self, count: int, seed: int = 0) -> list[Case]:
        """The hand-made cases, the seeds as they are, and mutations of these until there are ``count``."""
        seeds, cases = list(self.seeds()), list(self.known())
        cases += [self._case(each, each.data, "whole", number) for number, each in enumerate(seeds)]
        for number in range(max(0, count - len(cases))):
            each = seeds[number % len(seeds)]
            random_ = random.Random(f"{self.name} {each.name} {seed} {number}")  # noqa: S311 - the same cases always
            cases.append(self._case(each, mutated(each.data, random_, text=each.text), f"{seed}.{number}", number))
        return cases

    def _case(self, seed: Seed, data: bytes, what: str, number: int) -> Case:
        arguments = seed.arguments[(number // 7) % len(seed.arguments)]
        outputs = tuple(name for name in seed.outputs if name in arguments)
        files = {**(seed.beside or {}), seed.name: data}
        return Case(name=f"{self.name}/{seed.name}/{what}", arguments=arguments, files=files, outputs=outputs)
