"""Series of DICOM that come as an archive, and results that leave as one. Knows no HTTP.

Of an archive that comes in no name is used: its files become 00001.dcm and so on. What it would take on disk is bounded
while it is unpacked, whatever it says of itself.
"""

from __future__ import annotations

import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from semreg.errors import ImageError

MOST_SLICES = 10_000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError
)  # fmt: skip
"""What comes of reading a damaged archive."""
LARGEST_GAIN = 20
"""How many times what it took on its way an archive may take on disk."""
CHUNK = 1 << 16
"""Bytes of a piece: each thread that answers keeps the room of a few, whatever is fetched."""
DIRECTORY_BYTES = 1 << 21
"""Of the list of an archive's files, which is read whole."""
END, END_BYTES, LOCATOR = b"PK\x05\x06", 22 + (1 << 16), b"PK\x06\x07"
"""APPNOTE 4.3.16: the end of that list, how far from the end of a file it may begin; 4.3.15: of a large archive."""
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What is unpacked piece by piece: the others give out all that a piece stands for at once."""


def unpack(archive: Path, folder: Path, most_bytes: int) -> None:
    """Unpack the files of an archive into a new folder, flat and numbered (ImageError for what is none).

    Args:
        archive: a ZIP file from outside.
        folder: where they go.
        most_bytes: the limit of a request; on disk it may be LARGEST_GAIN times the archive, and four times this.
    """
    folder.mkdir(mode=0o700)
    left = min(archive.stat().st_size * LARGEST_GAIN, 4 * most_bytes)
    try:
        _check_list(archive)
        with zipfile.ZipFile(archive) as opened:
            members = [each for each in opened.infolist() if not each.is_dir()]
            if not 0 < len(members) <= MOST_SLICES:
                raise ImageError(f"expected 1 to {MOST_SLICES} slices in an archive, got {len(members)}")
            if any(member.compress_type not in PACKED for member in members):
                raise ImageError("expected slices stored or deflated in an archive, got another way: pack them anew")
            for number, member in enumerate(members, 1):
                with opened.open(member) as source, (folder / f"{number:05d}.dcm").open("xb") as target:
                    while chunk := source.read(CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise ImageError("expected slices of about the size of their archive, got far larger ones")
                        target.write(chunk)
    except ImageError:
        raise
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise ImageError("expected an archive (ZIP) of the slices of a series, got one that cannot be read") from error


def _check_list(archive: Path) -> None:
    """Refuse an archive whose list of files is longer than that of slices can be (ImageError)."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - END_BYTES))
        tail = file.read()
    at = tail.rfind(END)
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at < 0 or LOCATOR in tail or size > DIRECTORY_BYTES:
        raise ImageError(
            f"expected an archive (ZIP) of at most {MOST_SLICES} slices, got another file or a longer list"
        )


class _Sink(io.RawIOBase):
    """What is written is kept until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Keep it."""
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """All that was written since the last time."""
        taken, self._parts = b"".join(self._parts), []
        return taken


def packed(folder: Path, names: Sequence[str]) -> Iterator[bytes]:
    """A ZIP file with the files of a folder, piece by piece: no more than a piece is ever held.

    They are stored as they are: images and transforms are packed already.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo.from_file(folder / name, name)
            with (folder / name).open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield sink.take()
    yield sink.take()
