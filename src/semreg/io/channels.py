"""Images of several values a voxel, channel by channel: colours, vectors, frames. Knows nothing of registration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from semreg.core.fields import Volume
from semreg.io.bridge import LoadedImage
from semreg.io.image_files import checksum
from semreg.io.images import read_stored
from semreg.io.stored import Stored


@dataclass(frozen=True)
class Channels:
    """One image of several values a voxel, as images of one."""

    channels: tuple[LoadedImage, ...]
    """In their order; the opacity of colours is left out."""
    whole: LoadedImage | None
    """The luminance of colours; None: it has no colours."""


def read_channels(path: str | Path) -> Channels:
    """Read an image of colours, of vectors, or of frames, which then are the channels.

    Raises as ``semreg.read_image`` does, but for several values a voxel.
    """
    path = Path(path)
    stored = read_stored(path)
    digest = checksum(path)

    def loaded(one: Stored) -> LoadedImage:
        volume: Volume = one.samples().volume()
        return LoadedImage(volume, one.pixel_type, path, digest, one.modality, one.oriented, one.origin)

    colour = stored.components in (3, 4) and stored.pixel_type in ("uint8", "uint16")
    if stored.frames is not None:
        arrays = list(stored.array)
    elif stored.components > 1:
        arrays = [stored.array[..., number] for number in range(3 if colour else stored.components)]
    else:
        arrays = [stored.array]
    channels = tuple(loaded(replace(stored, array=array, components=1, frames=None)) for array in arrays)
    return Channels(channels, loaded(stored.grey()) if colour and stored.frames is None else None)
