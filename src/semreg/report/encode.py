"""Stacks and pictures as data URIs, within a number of bytes. Knows nothing of geometry; Pillow encodes."""

from __future__ import annotations

import base64
import io
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from semreg.report.colours import Bytes

SHEET_PIXELS = 8_000_000
"""Most pixels of one sheet: browsers on small devices refuse larger canvases."""
BLOCK = 8
"""JPEG compresses squares of so many pixels: tiles begin at their borders, so that slices do not bleed."""
QUALITIES = (85, 75, 60, 45, 30, 20)


class Sheets(msgspec.Struct, kw_only=True, rename="camel"):
    """Slices of one stack as tiles of pictures, row by row: what the viewer of the page reads."""

    uris: tuple[str, ...]
    per_sheet: int
    """Slices on each sheet but the last."""
    columns: int
    """Tiles in a row."""
    tile: tuple[int, int]
    """Rows and columns of a tile, of which the slice takes the first ones."""

    @property
    def size(self) -> int:
        """Bytes of all sheets."""
        return sum(map(len, self.uris))


S = TypeVar("S", bound=Sheets)


def sheets(stack: Bytes, kind: type[S], *, quality: int | None, **more: Any) -> S:
    """A stack (z, y, x) as JPEG of the given quality, or without loss as PNG for ``quality`` None.

    ``more``: what else a ``kind`` of sheets says.
    """
    depth, rows, columns = stack.shape
    height, width = (-(-n // BLOCK) * BLOCK if quality is not None else n for n in (rows, columns))
    across = max(1, min(depth, 4096 // width))
    per_sheet = max(1, min(depth, across * max(1, min(4096 // height, SHEET_PIXELS // (across * width * height)))))
    padded = np.pad(stack, ((0, 0), (0, height - rows), (0, width - columns)), mode="edge")
    uris = []
    for first in range(0, depth, per_sheet):
        part = padded[first : first + per_sheet]
        missing = -len(part) % across
        if missing:
            part = np.concatenate([part, np.zeros((missing, height, width), np.uint8)])
        tiles = part.reshape(-1, across, height, width).transpose(0, 2, 1, 3)
        uris.append(uri(tiles.reshape(-1, across * width), quality=quality))
    return kind(uris=tuple(uris), per_sheet=per_sheet, columns=across, tile=(height, width), **more)


def sheets_within(stacks: dict[str, Bytes], limit: int) -> dict[str, Sheets]:
    """All stacks as JPEG of the best quality with which they take at most ``limit`` bytes, if any does."""
    for quality in QUALITIES:
        made = {name: sheets(stack, Sheets, quality=quality) for name, stack in stacks.items()}
        if sum(each.size for each in made.values()) <= limit:
            break
    return made


def uri(picture: npt.NDArray[np.uint8], *, quality: int | None) -> str:
    """A grey (rows, columns) or colour (rows, columns, 3) picture as a data URI: JPEG, or PNG for ``quality`` None."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    target = io.BytesIO()
    if quality is None:
        image.save(target, "PNG", compress_level=6)
    else:
        image.save(target, "JPEG", quality=quality, subsampling=0 if picture.ndim == 3 else -1)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode('ascii')}"


def enlarged(picture: Bytes, size: tuple[int, int]) -> Bytes:
    """A picture at another size (rows, columns), interpolated."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
