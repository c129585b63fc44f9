"""The way into and out of every command: its terminal, and what nobody foresaw.

What libraries write past Python (the stacks of HDF5, notes of ITK) and warnings of Python are kept from the terminal;
``--debug`` shows them. An exception that is none of ours ends in one sentence and a file with its trace. Imports
nothing heavy.
"""

from __future__ import annotations

import atexit
import errno
import io
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn, TextIO

import semreg
from semreg.runtime.streams import OUTPUTS, diverted

EXIT_BAD_INPUT = 2
EXIT_UNFORESEEN = 70
EXIT_NOBODY_READS = 141
"""As a process that SIGPIPE ended."""

LONGEST = 4000
"""Letters of a sentence."""
NOISE_BYTES = 1 << 16
"""How much of what libraries said goes to the file with a trace, from its end."""


@contextmanager
def guarded(arguments: Sequence[str]) -> Iterator[None]:
    """Run a command in this block; it leaves with SystemExit alone."""
    _open_closed()
    with ExitStack() as stack:
        noise = None if "--debug" in arguments else stack.enter_context(_without_noise())
        try:
            _check_text(arguments)
            yield
            _flush()
        except SystemExit as end:
            _flush(end.code)
            raise
        except OSError as error:
            leave(error)
        except Exception as error:  # noqa: BLE001 - the one place for what nobody foresaw
            unforeseen(error, arguments, noise)


def leave_interrupted(code: int) -> NoReturn:
    """Leave with ``code``, once all is put away: Python ends by the signal where it came within ``exec``."""
    logging.shutdown()
    atexit._run_exitfuncs()  # noqa: SLF001 - what sys.exit does, and os._exit does not
    os._exit(code)


def say_error(message: str) -> None:
    """One line on the standard error, if anybody reads it."""
    with suppress(OSError, ValueError):
        said = " ".join(message.split())
        sys.stderr.write(f"error: {said[:LONGEST]}{'…' if len(said) > LONGEST else ''}\n")
        sys.stderr.flush()


def unforeseen(error: Exception, arguments: Sequence[str], noise: IO[bytes] | None = None) -> NoReturn:
    """Say in one sentence that this is a fault of semreg, and in which file its trace is."""
    trace = "".join(traceback.format_exception(error))
    said = b""
    if noise is not None:
        noise.seek(max(0, noise.seek(0, io.SEEK_END) - NOISE_BYTES))
        said = noise.read()
    text = f"semreg {semreg.__version__}\n{list(arguments)}\n\n{trace}\n{said.decode(errors='replace')}"
    try:
        number, place = tempfile.mkstemp(prefix="semreg-error-", suffix=".log")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        place = "none, as no file could be written"
    if "--debug" in arguments:
        sys.stderr.write(trace)
    say_error(
        f"expected no {type(error).__name__}, got one ({str(error)[:200] or 'no words'}), a fault of semreg: nothing "
        f"was written; please report it with the file {place}"
    )
    raise SystemExit(EXIT_UNFORESEEN)


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse names that are no UTF-8, which no library under this one takes."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            say_error(f"expected names in UTF-8, got {os.fsencode(argument)[:200]!r}: rename the file or folder")
            raise SystemExit(EXIT_BAD_INPUT) from None


def _open_closed() -> None:
    """Open what the caller has closed, or the next file would take its place, and what is printed would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends


@contextmanager
def _without_noise() -> Iterator[IO[bytes]]:
    """Whatever is written past Python's own streams goes to a file that nobody sees, and so do warnings."""
    with ExitStack() as stack:
        try:
            noise: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            noise = stack.enter_context(Path(os.devnull).open("w+b"))
        shown = warnings.showwarning
        warnings.showwarning = lambda *said, **_: _write_warning(noise, *said)
        stack.callback(setattr, warnings, "showwarning", shown)
        for name, number in stack.enter_context(diverted(noise)).items():
            stack.enter_context(_moved(name, number))
        yield noise


def _write_warning(noise: IO[bytes], *said: object) -> None:
    with suppress(OSError, ValueError):
        noise.write(f"{said[1:2]} {said[0]}\n".encode(errors="replace"))


@contextmanager
def _moved(name: str, number: int) -> Iterator[None]:
    """Python's own stream on the descriptor ``number``, which is what it was before."""
    before: TextIO = getattr(sys, name)
    with suppress(OSError, ValueError, AttributeError):  # another stream in its place needs no move
        if before.fileno() == OUTPUTS[name]:
            buffering = 1 if name == "stderr" or os.isatty(number) else -1
            kept = os.fdopen(
                number, "w", encoding=before.encoding, errors="backslashreplace", buffering=buffering, closefd=False
            )
            setattr(sys, name, kept)
    try:
        yield
    finally:
        now = getattr(sys, name)
        with suppress(OSError, ValueError):
            now.flush()
        if now is not before:
            with suppress(OSError, ValueError):
                now.close()
        setattr(sys, name, before)


def _flush(code: object = 0) -> None:
    """Hand over what was printed; a pipe that nobody reads, or a full disk, changes how a good end is called."""
    pacified = type(sys.stdout).__name__ == "PacifyFlushWrapper"  # by typer, where nobody reads its help
    try:
        sys.stdout.flush()
    except OSError as error:
        if code in (0, None):
            leave(error)
    if pacified:
        raise SystemExit(EXIT_NOBODY_READS)


def leave(error: OSError) -> NoReturn:
    """Leave after an error of the system: quietly where nobody reads, else in one sentence."""
    if error.errno == errno.EPIPE:
        raise SystemExit(EXIT_NOBODY_READS)
    why = error.strerror or str(error)
    if error.filename is None:
        say_error(f"expected to read and write, got: {why}; check what the output goes to, and the disk")
    else:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else error.filename
        say_error(f"expected a file or folder that can be used, got {str(name)[:300]}: {why}")
    raise SystemExit(EXIT_BAD_INPUT)
