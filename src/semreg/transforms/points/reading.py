"""Points in the files of other tools: found, given as LPS in mm, and put back with everything else untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.files import atomic_file
from semreg.runtime.texts import read_bytes, shown
from semreg.transforms.chain import Chain, Followed
from semreg.transforms.domain import Outside, warn_beyond
from semreg.transforms.points import POINTS
from semreg.transforms.points.contract import PointFile


def _format_of(path: Path) -> str | None:
    """The name of the format that the end of a name says."""
    return next((name for name, row in POINTS.rows.items() if path.suffix.lower() == row.ending), None)


def is_point_file(path: str | Path) -> bool:
    """Whether a file holds points, by its name; of ``.vtk`` files, which may be images too, by what they say."""
    name = _format_of(Path(path))
    if name is None:
        return False
    recognises = POINTS[name].recognises
    return recognises is None or recognises(Path(path))


def read_points(path: str | Path, *, ras: bool = False) -> PointFile:
    """Read the points of a file.

    Args:
        path: a ``.csv``, ``.fcsv``, ``.mrk.json``, ``.txt`` (transformix), ``.geojson``, ``.vtk`` or ``.vtp`` file.
        ras: a CSV file and a mesh that do not say so themselves are RAS instead of LPS.

    Returns:
        The points (D, N) in mm, LPS, or in voxels where the file counts so, their names, and how to write others in
        their place.

    Raises:
        ConfigError: for a file of another ending.
        ImageError: for a file that cannot be read, has no point, or one that is not finite.
    """
    path = Path(path)
    name = _format_of(path)
    if name is None:
        endings = ", ".join(row.ending for row in POINTS.rows.values())
        raise ConfigError(f"expected points in a file of {endings}, got {path}")
    data = read_bytes(path, "a file with points", ImageError)
    try:
        found = POINTS[name].parse(data, ras)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except ValueError as error:  # of texts, JSON and tables
        raise ImageError(f"expected a file with points, got {path}: {shown(str(error))}") from error
    if not found.points.shape[1]:
        raise ImageError(f"expected at least one point, got none in {path}: check that it is the right file")
    if not np.isfinite(found.points).all():
        raise ImageError(f"expected points with finite coordinates, got NaN or infinity in {path}: remove those")
    return found


def counts_in_voxels(grid: Grid) -> bool:
    """Whether a point of the grid in mm is the index of its voxel, as of pictures without a size of their pixels."""
    return bool(np.allclose(grid.index_to_point(), Grid.of_shape(grid.shape).index_to_point(), rtol=0, atol=1e-6))


def move_points(
    source: Path, target: Path, chain: Chain, *, ras: bool = False, outside: Outside = Outside.IDENTITY
) -> Followed:
    """Write the points of a file after a transform to a file of the same kind.

    Args:
        source: the file with the points, as for ``read_points``.
        target: the file to write, with the same ending.
        chain: the transform of the points.
        ras: a CSV file and a mesh that do not say so themselves are RAS instead of LPS.
        outside: what points do beyond the boxes of the chain's fields.

    Returns:
        The points (D, N) in mm, LPS, after the transform, and which of them were beyond these boxes.

    Raises:
        ConfigError: for two endings, and for the background, which no point has.
        ImageError: for a file that cannot be read, has no point, or one that is not finite.
        GeometryError: for points of another dimension than the transform, and for points in voxels where it has mm.
        OutputError: where the file cannot be written.
    """
    if outside is Outside.BACKGROUND:
        raise ConfigError("expected the outside continue or identity for points, got background: points have none")
    if source.suffix.lower() != target.suffix.lower():
        raise ConfigError(f"expected points to be written as they are stored, in a {source.suffix} file, got {target}")
    file = read_points(source, ras=ras)
    points, rest = file.points[: chain.dimension], file.points[chain.dimension :]
    if len(points) < chain.dimension or rest.any():
        raise GeometryError(
            f"expected points in {chain.dimension}-D as the transform, got points in {len(file.points)}-D in {source}: "
            "give those that belong to its images"
        )
    if file.in_voxels and not (chain.grid is None or counts_in_voxels(chain.grid)):
        raise GeometryError(
            f"expected points in mm, as the transform has them, got points in voxels in {source}: "
            "only transforms between pictures without a size of their pixels count so"
        )
    moved = chain.follow(points, outside)
    data = file.rewritten(np.concatenate([moved.points, rest]))
    with atomic_file(target) as partial:
        partial.write_bytes(data)
    beyond = int((moved.beyond & ~np.isnan(moved.residual)).sum())  # what has no origin is counted as such
    if beyond:
        warn_beyond(beyond, points.shape[1], "points", outside)
    return moved
