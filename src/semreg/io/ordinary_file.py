"""Whether a path is an ordinary file: what is opened where a file is wanted. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from semreg.errors import ImageError, SemregError


def check_file(path: str | Path, what: str = "an image file", error: type[SemregError] = ImageError) -> Path:
    """The path, if it is a file with an end: a pipe may block for ever, and a device may never end.

    Args:
        path: What was given; a link counts as what it leads to.
        what: What was wanted, with its article.
        error: The kind of error to raise.

    Raises:
        SemregError: Of the kind ``error``, where it is missing, a folder, a pipe, a socket or a device.
    """
    path = Path(path)
    try:
        if path.is_file():
            return path
        kind = "it is a folder" if path.is_dir() else "it is a pipe or a device" if path.exists() else ""
    except (OSError, ValueError) as problem:  # a name that is too long, or has a zero byte in it
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"expected {what}, got {str(path)[:200]!r}: {reason}") from problem
    raise error(f"expected {what}, got {path}: {kind or 'there is no such file'}")
