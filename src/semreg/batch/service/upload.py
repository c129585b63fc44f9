"""How a job comes in: the parts of a form straight to files, under names of our own, within limits of size and time.

A part is on disk as soon as it is here: nothing is held, and no other folder is written to. Whatever is wrong is one
sentence with a status, and the folder of what came in is removed by who made it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from semreg.batch.service.archive import FULL, unpack
from semreg.batch.service.asked import ROLES, SERIES, Asked, asked_of, check_alone, check_name, ending_of
from semreg.errors import ConfigError, ImageError

TEXT_BYTES = 1 << 16
"""Most bytes of a part that is text."""
PATIENCE_SECONDS = 60.0
"""How long nothing may come while something is still to come."""
ROOM_BYTES = 1 << 26
"""Bytes that stay free on the disk, for results and for how jobs stand."""

TOO_LARGE, NO_ROOM, NOT_UNDERSTOOD, WRONG, TOO_SLOW, NO_FORM = 413, 507, 400, 422, 408, 415


async def receive(request: Request, folder: Path, most_bytes: int, models: Sequence[Path]) -> Asked:
    """Read a request into ``folder``; what it asks for (HTTPException, with one sentence, for anything else)."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise HTTPException(NO_FORM, "expected a form (multipart/form-data) with the parts fixed and moving")
    announced = int(request.headers.get("content-length", "0") or 0)
    _check_size(announced, most_bytes)
    _check_room(folder, announced)
    with _told(), ExitStack() as stack:
        parts = _Parts(folder, stack)
        parser = MultipartParser(options[b"boundary"], parts.callbacks())  # type: ignore[arg-type]
        come = 0
        chunks = request.stream().__aiter__()
        while True:
            async with asyncio.timeout(PATIENCE_SECONDS):
                chunk = await anext(chunks, b"")
            if not chunk:
                break
            come += len(chunk)
            _check_size(come, most_bytes)
            await run_in_threadpool(parser.write, chunk)
        parser.finalize()
        if not parts.complete:
            raise HTTPException(NOT_UNDERSTOOD, "expected a whole form, got one that ends early: send it again")
        stack.close()
        texts = {name: _text(name, value) for name, value in parts.texts.items()}
        return await run_in_threadpool(_checked, folder, parts.files, texts, most_bytes, models)


def _checked(
    folder: Path, files: dict[str, str], texts: dict[str, str], most_bytes: int, models: Sequence[Path]
) -> Asked:
    """What is asked for; archives of slices are folders from here on."""
    asked = asked_of(files, texts, models)
    placed = {}
    for role, name in files.items():
        placed[role] = name
        if name.endswith(SERIES):
            unpack(folder / name, folder / role, most_bytes)
            (folder / name).unlink()
            placed[role] = role
        for path in (folder / role).glob("*") if placed[role] == role else [folder / name]:
            check_alone(path)
    return replace(asked, files=placed)


@dataclass
class _Parts:
    """The parts of a form as they come: files to disk, texts kept."""

    folder: Path
    stack: ExitStack
    """Closes the file that is open."""
    files: dict[str, str] = field(default_factory=dict)
    texts: dict[str, bytearray] = field(default_factory=dict)
    complete: bool = False
    _key: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _file: BinaryIO | None = None
    _text: bytearray | None = None

    def callbacks(self) -> dict[str, object]:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._key.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._named,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._whole,
        }

    def _begin(self) -> None:
        self._disposition, self._file, self._text = b"", None, None
        self._key, self._value = bytearray(), bytearray()

    def _header(self) -> None:
        if bytes(self._key).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._key, self._value = bytearray(), bytearray()

    def _named(self) -> None:
        """A part begins: which it is, and where it goes. Of the name of a file its ending is all that is used."""
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        check_name(name)
        if name in self.files or name in self.texts:
            raise ConfigError(f"expected each part once, got {name} twice: leave one out")
        if name in ROLES:
            if b"filename" not in options:
                raise ConfigError(f"expected a file as {name}, got a text: give the file with its name")
            self.files[name] = f"{name}{ending_of(options[b'filename'].decode(errors='replace'))}"
            self._file = self.stack.enter_context((self.folder / self.files[name]).open("xb"))
        else:
            self._text = self.texts[name] = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._text is not None:
            if len(self._text) + end - start > TEXT_BYTES:
                raise HTTPException(TOO_LARGE, f"expected texts of at most {TEXT_BYTES} bytes, got a longer one")
            self._text += data[start:end]

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()

    def _whole(self) -> None:
        self.complete = True


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise HTTPException(TOO_LARGE, f"expected at most {most_bytes / 1e6:g} MB a request, got more: send less")


def _check_room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size + ROOM_BYTES:
        raise HTTPException(NO_ROOM, "expected room on the disk of the service, there is too little: try again later")


@contextmanager
def _told() -> Iterator[None]:
    """What can be wrong with a request, as a status and one sentence."""
    try:
        yield
    except (ConfigError, ImageError) as error:
        raise HTTPException(WRONG, str(error)) from error
    except FormParserError as error:
        raise HTTPException(NOT_UNDERSTOOD, "expected a form, got one that cannot be read: send it again") from error
    except ClientDisconnect as error:
        raise HTTPException(NOT_UNDERSTOOD, "expected a whole form, the connection ended before") from error
    except TimeoutError as error:
        raise HTTPException(TOO_SLOW, f"expected the rest within {PATIENCE_SECONDS:g} s, nothing came") from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise HTTPException(NO_ROOM, "expected room on the disk of the service, there is none: try later") from error


def _text(name: str, value: bytearray) -> str:
    try:
        return bytes(value).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"expected {name} as text in UTF-8, got other bytes") from None
