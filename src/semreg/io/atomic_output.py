"""Output that is there completely or not at all. Knows nothing of images.

Files are made under a temporary name beside their place and renamed when they are complete; what is interrupted,
by an error or by Ctrl-C, leaves nothing behind.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from types import TracebackType
from typing import Self

from semreg.errors import OutputError
from semreg.io.staging import make_staging, staging_for

SMALL = str.maketrans(ascii_uppercase, ascii_lowercase)
UNFINISHED = ".semreg-"
"""What the names of unfinished files and folders start with."""
UNFINISHED_KEY = "unfinished"
"""In a record: the files beside it are being replaced."""


def check_output_folder(path: str | Path) -> Path:
    """Make the folder and its parents and check that files can be written there.

    Raises OutputError, with the reason, if not.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=UNFINISHED):
            pass
    except OSError as error:
        raise _output_error(folder, error) from error
    return folder


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` at the end of the block, or disappears on any exception.

    It has the name of ``path``, in small letters, in a new folder beside it that nobody else may write to: no link that
    somebody has put there is followed, the name is as long as the final one, and writers know its ending. Raises
    OutputError for an OSError, a full disk for example, in the block.
    """
    final = Path(path)
    staging, lock = staging_for(final.parent), None
    try:
        lock = make_staging(staging)
        partial = staging / final.name.translate(SMALL)
        yield partial
        partial.replace(final)
    except OutputError:
        raise
    except OSError as error:
        raise _output_error(final, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def reserve(path: Path, size: int) -> None:
    """Find out whether a file of ``size`` bytes fits at ``path``, without writing it; OSError if not.

    For writers that cannot cope with a full disk. Nothing is left at ``path``.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    path.unlink()


class OutputFolder:
    """A folder that gets all files of a run or none.

    Inside the ``with`` block files are written to ``stage(name)``, or into folders made there; when it ends well they
    are moved to their place, replacing files of the same name. On any exception they are removed, and so are folders
    made for them.

    Several files cannot be moved at once. Where a ``record`` tells what is in the folder, it says ``unfinished`` from
    before the first file goes until the last one has come, and no old file stays beside a new one: a process that is
    killed meanwhile leaves nothing that could be taken for a result.
    """

    def __init__(self, path: str | Path, *, record: str | None = None) -> None:
        """``path`` is made, with its parents, when the block is entered; ``record``: the name of a file in JSON."""
        self.path = Path(path)
        self.stale: list[str] = []
        """Names of files of earlier runs that go when the new ones come; set in the block."""
        self._record = record
        self.files: list[Path] = []
        """The files in place, sorted by name, once the block has ended."""
        self._made: list[Path] = []
        self._staging: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        # a signal may end it between any two lines: what is to be removed is known before it is there
        self._made, self._staging = missing, staging_for(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = make_staging(self._staging)
            return self
        except OSError as error:
            self._discard()
            raise _output_error(self.path, error) from error
        except (KeyboardInterrupt, SystemExit):  # what signals become
            self._discard()
            raise

    def stage(self, name: str) -> Path:
        """Where to write the file that will be ``name`` in the folder."""
        if self._staging is None:
            raise OutputError(f"expected an entered OutputFolder, got one that is closed: use with on {self.path}")
        return self._staging / name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._publish()
        except KeyboardInterrupt:
            self._publish()  # everything is written: finish what takes a moment, then stop
            raise
        except OSError as problem:
            raise _output_error(self.path, problem) from problem
        finally:
            self._discard()

    def _publish(self) -> None:
        if self._staging is None:
            return
        staged = sorted(self._staging.rglob("*"), key=lambda path: (path.name == self._record, path))
        places = {path: self.path / path.relative_to(self._staging) for path in staged}
        if self._record is not None:
            self._clear([path.relative_to(self._staging).as_posix() for path in staged if path.is_file()])
        for path, place in places.items():
            if path.is_dir():
                place.mkdir(exist_ok=True)
            else:
                path.replace(place)
                self.files.append(place)
        self.files.sort()
        self._made = []

    def _clear(self, new: list[str]) -> None:
        """Say in the record that the folder is unfinished and which files may be in it; remove those that are."""
        placed = [path.relative_to(self.path).as_posix() for path in self.files]  # before it was interrupted
        names = sorted({*self.stale, *new, *placed})
        with atomic_file(self.path / str(self._record)) as partial:
            partial.write_text(json.dumps({UNFINISHED_KEY: True, "outputs": names}), encoding="utf-8")
        for name in names:
            if name not in (self._record, *placed):
                (self.path / name).unlink(missing_ok=True)

    def _discard(self) -> None:
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for folder in self._made:
            try:
                folder.rmdir()
            except FileNotFoundError:  # not made yet
                continue
            except OSError:  # not empty: somebody else uses it
                break


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"expected to write to {path}, got: {error.strerror or error}; choose a folder that is writable and has room"
    )
