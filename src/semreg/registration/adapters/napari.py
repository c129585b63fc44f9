"""A registration in the viewer napari: two layers in, the warped image and the displacement as layers out.

Layers are placed by an affine from voxels to the world, both in the order (z, y, x); a unit that is a length is
brought to mm, and a pixel counts as one mm. Needs the package ``napari``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from magicgui import magic_factory
from napari.layers import Image, Layer
from napari.qt.threading import FunctionWorker, thread_worker
from napari.types import LayerDataTuple

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import ImageError
from semreg.io.bridge import Lattice, Samples
from semreg.presets import preset_names
from semreg.registration.pipeline import register
from semreg.registration.result import Registration

DEFAULTS = "default"
"""The choice that is no preset."""
MOST_ARROWS = 4000


def mm_of(layer: Layer) -> npt.NDArray[np.float64]:
    """How many mm one of the layer's units is along each axis of the world, (z, y, x); 1 for pixels."""
    lengths = [(1 * unit).to("mm").magnitude if unit.is_compatible_with("mm") else 1.0 for unit in layer.units]
    return np.asarray(lengths, dtype=np.float64)


def volume_of(layer: Layer) -> Volume:
    """The image of a layer at its place in the world (ImageError for what is no image of two or three axes)."""
    data = np.asarray(layer.data)
    if data.ndim not in (2, 3) or getattr(layer, "rgb", False):
        raise ImageError(
            f"expected a layer of grey values along 2 or 3 axes, got {layer.name} with {data.ndim} and colours "
            f"{'on' if getattr(layer, 'rgb', False) else 'off'}: split its channels or its time"
        )
    origin = np.asarray(layer.data_to_world((0.0,) * data.ndim))
    axes = np.transpose([np.asarray(layer.data_to_world(tuple(axis))) - origin for axis in np.eye(data.ndim)])
    mm = mm_of(layer)
    matrix = (mm[:, None] * axes)[::-1, ::-1]  # (z, y, x) on both sides becomes (x, y, z)
    lattice = Lattice.of_matrix(data.shape[::-1], matrix, (mm * origin)[::-1])
    return Samples(data, *lattice.straight()).volume()


def affine_of(grid: Grid, mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From voxels (z, y, x) of a grid to the world in units of ``mm``, as napari takes it: homogeneous."""
    count = grid.dimension
    placed = np.eye(count + 1)
    placed[:count, :count] = (np.asarray(grid.direction) * np.asarray(grid.spacing_xyz))[::-1, ::-1] / mm[:, None]
    placed[:count, count] = np.asarray(grid.origin_xyz)[::-1] / mm
    return placed


def arrows_of(field: Field, mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The displacement at places that are spread evenly: (N, 2, D), start and vector in the world, (z, y, x)."""
    shape = field.grid.shape
    step = max(1, int(np.ceil((np.prod(shape) / MOST_ARROWS) ** (1 / len(shape)))))
    taken = tuple(slice(step // 2, None, step) for _ in shape)
    index = np.stack(np.meshgrid(*(np.arange(n)[s] for n, s in zip(shape, taken, strict=True)), indexing="ij"))
    vectors = field.mm().detach().cpu().numpy()[(slice(None), *taken)].reshape(len(shape), -1)[::-1]
    placed = affine_of(field.grid, np.ones(len(shape)))
    starts = placed[:-1, :-1] @ index.reshape(len(shape), -1) + placed[:-1, -1:]
    return np.stack([starts.T, vectors.T], axis=1) / mm


def layers_of(result: Registration, fixed: Layer, moving: Layer) -> list[LayerDataTuple]:
    """The warped image and the displacement, fixed → moving, as napari adds them."""
    mm = mm_of(fixed)
    warped = {"name": f"{moving.name} on {fixed.name}", "affine": affine_of(result.warped.grid, mm)}
    looks = {"colormap": moving.colormap.name, "contrast_limits": moving.contrast_limits}
    arrows = {"name": "displacement", "edge_width": 0.3 * min(fixed.extent.step), "vector_style": "arrow"}
    return [
        (result.warped.data[0].cpu().numpy(), {**warped, **looks, "units": fixed.units}, "image"),
        (arrows_of(result.field, mm), {**arrows, "units": fixed.units, "visible": False}, "vectors"),
    ]


def registering(fixed: Layer, moving: Layer, preset: str = DEFAULTS) -> Callable[[], list[LayerDataTuple]]:
    """What is done in the other thread: the layers are read now, as the user may change them meanwhile."""
    images = volume_of(fixed), volume_of(moving)

    def work() -> list[LayerDataTuple]:
        return layers_of(register(*images, preset=None if preset == DEFAULTS else preset), fixed, moving)

    return work


@magic_factory(call_button="Register", preset={"choices": [DEFAULTS, *preset_names()]})  # type: ignore[untyped-decorator]  # of a package without types
def register_widget(fixed: Image, moving: Image, preset: str = DEFAULTS) -> FunctionWorker[list[LayerDataTuple]]:
    """Align and deform the layer ``moving`` onto ``fixed`` in another thread, and add what was found as layers."""
    worker: Any = thread_worker(registering(fixed, moving, preset), progress={"desc": "semreg"}, start_thread=True)()
    return worker
