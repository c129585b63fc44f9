"""ITK's transforms in text, ``.tfm`` and ``.txt``."""

from __future__ import annotations

import numpy as np

from semreg.errors import GeometryError
from semreg.io.transform_files.record import COMPOSITE, DAMAGED, Numbers, Stored, kind_of

HEADER = b"#Insight Transform File"
BOM = b"\xef\xbb\xbf"
NUMERIC = frozenset(b"0123456789+-.eE \t")
WORDS = ("Transform", "Parameters", "FixedParameters")


def is_text(start: bytes) -> bool:
    """Whether a file that starts so is such a one."""
    return start.removeprefix(BOM).startswith(HEADER)


def parse(data: bytes) -> list[Stored]:
    """The transforms of a file, one after the other; GeometryError for what is none."""
    found: list[dict[str, bytes]] = []
    for line in data.removeprefix(BOM).splitlines():
        word, colon, value = line.partition(b":")
        name = word.strip().decode("latin-1")
        if not line.strip(b"\0 \t") or name.startswith("#"):
            continue
        if not colon or name not in WORDS or (name != "Transform" and not found):
            shown = line[:40].decode(errors="replace")
            raise GeometryError(f"expected a transform and its parameters in text, got the line {shown!r}: {DAMAGED}")
        if name == "Transform":
            found.append({})
        if name in found[-1]:
            raise GeometryError(f"expected {name} once for each transform, got it twice: {DAMAGED}")
        found[-1][name] = value.strip()
    return [_stored(each) for each in found]


def _stored(said: dict[str, bytes]) -> Stored:
    name = said["Transform"].decode(errors="replace")
    if "Parameters" not in said or "FixedParameters" not in said:
        if kind_of(name)[0] != COMPOSITE:
            raise GeometryError(f"expected parameters and fixed parameters of the {name[:60]}, got fewer: {DAMAGED}")
        return Stored.of(name, np.zeros(0), np.zeros(0))
    return Stored.of(name, numbers(said["Parameters"]), numbers(said["FixedParameters"]))


def numbers(text: bytes) -> Numbers:
    """The numbers of a line, those that are too large as infinity (GeometryError)."""
    words = text.split()
    try:
        if not NUMERIC.issuperset(text):
            raise ValueError
        return np.array([float(word) for word in words], dtype=np.float64)
    except ValueError:
        wrong = next((word for word in words if not _is_number(word)), text)[:20].decode(errors="replace")
        raise GeometryError(
            f"expected numbers with a point between spaces as parameters, got {wrong!r}: correct the file"
        ) from None


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return NUMERIC.issuperset(word)
