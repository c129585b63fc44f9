"""Series of DICOM that come as an archive, and results that leave as one. Knows no HTTP.

Of an archive that comes in no name is used: its files become 00001.dcm and so on. What it would take on disk is bounded
while it is unpacked, whatever it says of itself.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from semreg.errors import ImageError

MOST_SLICES = 10_000
LARGEST_GAIN = 20
"""How many times what it took on its way an archive may take on disk."""
CHUNK = 1 << 20


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
        with zipfile.ZipFile(archive) as opened:
            members = [each for each in opened.infolist() if not each.is_dir()]
            if not 0 < len(members) <= MOST_SLICES:
                raise ImageError(f"expected 1 to {MOST_SLICES} slices in an archive, got {len(members)}")
            for number, member in enumerate(members, 1):
                with opened.open(member) as source, (folder / f"{number:05d}.dcm").open("xb") as target:
                    while chunk := source.read(CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise ImageError("expected slices of about the size of their archive, got far larger ones")
                        target.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ImageError("expected an archive (ZIP) of the slices of a series, got one that cannot be read") from error


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
