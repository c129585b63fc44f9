"""The file of a model tried by a process of its own, before this one lets it run: what it may take is limited there.

A model is a program. It can loop for ever, ask for all memory, or end the process that runs it, and nothing inside that
process can stop it. Knows no image: what is tried is loading, and one small input.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from semreg.config import ModelConfig
from semreg.errors import ModelError, ModelNotFoundError
from semreg.features.loaded import LoadedNetwork
from semreg.features.models import Choice, is_file_name, resolve_model
from semreg.features.networks import KINDS, kind_of, read_spec
from semreg.features.registrar import read_registrar_spec
from semreg.io.digests import sha256_of
from semreg.io.ordinary_file import check_file
from semreg.runtime.memory import available_bytes, held_bytes, is_out_of_memory

SECONDS = 120.0
"""Of one processor, for loading and one small input."""
REGISTRAR_SECONDS = 900.0
"""The same of a network that registers: what it sees is not small."""
Kind: TypeAlias = Literal["features", "registrar"]
"""What a model is for: features of one image, or the registration of two."""
LEAST_BYTES = 256 << 20
"""What a model may take at least, however small the limit of the process is: that is looked at where it is run."""
NO_MEMORY = 3
"""Exit code of a trial that ran out of memory."""


def try_model(
    model: str | Path,
    spec: Sequence[str] = (),
    *,
    memory: int | None = None,
    seconds: float = SECONDS,
    kind: Kind = "features",
) -> None:
    """Try a model in a process of its own, if it is a file; a name of the catalogue stands for a file that is known.

    The same file is tried once, and none whose description has its checksum. What there is to complain about it else
    is left to whoever loads it.

    Args:
        model: File or name.
        spec: Values of its description that are to be others, as ``name=value``.
        memory: Bytes that this process may hold in all; what there is where it is None.
        seconds: Time of one processor that it may take.
        kind: What it is for.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelError: It takes more time or memory, or ends the process.
    """
    if kind == "features" and not is_file_name(model):
        return
    path = check_file(model, "the file of a model", ModelNotFoundError)
    described = read_spec(path) if kind == "features" else read_registrar_spec(path)
    if described.sha256 is not None:
        return  # it is the file that somebody knows, or will be refused
    try:
        with path.open("rb") as file:
            if kind_of(file) not in KINDS:
                return
        checksum = sha256_of(path)
    except OSError as error:
        raise ModelError(f"expected to read a model from {path}: {error.strerror or error}") from error
    room = available_bytes() if memory is None else memory - held_bytes()
    trial = checksum, tuple(spec), memory, seconds
    if trial not in _passed:
        _try(kind, path, max(room, LEAST_BYTES), seconds, spec)
        _passed.add(trial)


def try_models(models: Sequence[ModelConfig]) -> None:
    """The same for all models of a registration."""
    for entry in models:
        for model in dict.fromkeys((entry.model, entry.moving or entry.model)):
            try_model(model, entry.spec)


_passed: set[tuple[str, tuple[str, ...], int | None, float]] = set()
"""What was tried and did no harm, so that it is tried once."""


def try_registrar(model: str | Path | None, *, memory: int | None = None, seconds: float = REGISTRAR_SECONDS) -> None:
    """The same for a network that registers, whose own input may be large; None: there is none."""
    if model is not None:
        try_model(model, memory=memory, seconds=seconds, kind="registrar")


def _try(kind: Kind, path: Path, room: int, seconds: float, spec: Sequence[str]) -> None:
    command = [sys.executable, "-P", "-c", f"import sys; from {__name__} import main; main(sys.argv[1:])"]
    with tempfile.TemporaryFile() as said:
        ended = subprocess.run(  # noqa: S603 - our own Python and our own words
            [*command, kind, str(path), str(room), str(seconds), *spec], check=False, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said,
        ).returncode  # fmt: skip
    if ended == -signal.SIGPROF:
        raise ModelError(
            f"expected {path} to load and to run on a small image within {seconds:g} s, it did not: export a model "
            "that ends"
        )
    if ended == NO_MEMORY:
        raise ModelError(
            f"expected {path} to load and to run on a small image in {room / 1e9:.2g} GB, it asks for more: raise the "
            "limit of memory, or use a smaller model"
        )
    if ended < 0:
        raise ModelError(
            f"expected a model that torch can run, got {path}, which ends the process "
            f"({signal.Signals(-ended).name}): export it anew"
        )


def main(arguments: Sequence[str]) -> None:
    """The trial itself, in a process of its own: kind and file of the model, bytes, seconds, and its description."""
    import torch

    from semreg.features.agreement import attempt
    from semreg.features.registrar import load_registrar

    kind, path, room, seconds, *spec = arguments
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    own = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = pages * resource.getpagesize() + int(room)
    limit = limit if own == resource.RLIM_INFINITY else min(limit, own)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, float(seconds))
    try:
        if kind == "registrar":
            load_registrar(Path(path)).attempt()
            os._exit(0)
        model = resolve_model(Path(path), Choice(spec=tuple(spec)))
        if isinstance(model, LoadedNetwork):
            attempt(model.values, model.spec, model.device)
    except (MemoryError, RuntimeError) as error:  # others end it too: whoever loads the model says what is wrong
        os._exit(NO_MEMORY if is_out_of_memory(error) else 0)
    os._exit(0)  # whatever the model has set up need not be taken down
