"""Promises of images in chunks: OME-Zarr of both versions and whole slides lie where their metadata say."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io import images
from semreg.io.ngff import door
from semreg.io.ngff.opening import open_pyramid
from semreg.io.ngff.writing import PyramidWriter

zarr = pytest.importorskip("zarr", reason="the extra semreg[zarr] is not installed")
pytest.importorskip("ome_zarr", reason="the extra semreg[zarr] is not installed")


def axes_of(names, unit="micrometer"):
    kinds = {"c": "channel", "t": "time"}
    return [
        {"name": name, "type": kinds.get(name, "space"), **({} if name in kinds or not unit else {"unit": unit})}
        for name in names
    ]


def written(folder, array, names="zyx", *, version="0.5", unit="micrometer", scale=None, shift=None, whole=None):
    """An OME-Zarr of one resolution, by hand from the words of the specification."""
    n = array.ndim
    group = zarr.open_group(str(folder), mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("s0", shape=array.shape, chunks=(3,) * n, dtype=array.dtype)[...] = array
    transformations = [{"type": "scale", "scale": list(scale or [1.0] * n)}]
    if shift is not None:
        transformations.append({"type": "translation", "translation": list(shift)})
    image = {
        "axes": names if isinstance(names, list) else axes_of(names, unit),
        "datasets": [{"path": "s0", "coordinateTransformations": transformations}],
        **({} if whole is None else {"coordinateTransformations": whole}),
    }
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": version, **image}]
    return folder


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_it_lies_where_its_metadata_say(tmp_path, version):
    """Scale, then translation, then those of the whole; micrometres become mm; every sample at its place."""
    array = numbers(4, 5, 7)
    whole = [{"type": "scale", "scale": [2.0, 1.0, 1.0]}, {"type": "translation", "translation": [0.0, 0.0, 5.0]}]
    path = written(tmp_path / "a.zarr", array, version=version, scale=(30, 20, 10), shift=(100, 50, -7), whole=whole)
    image = images.read_image(path)
    assert image.pixel_type == "uint16"
    assert np.array_equal(image.volume.data[0].numpy(), array)
    grid = image.volume.grid
    assert grid.size_xyz == (7, 5, 4)
    assert grid.spacing_xyz == pytest.approx((0.010, 0.020, 0.060))
    assert grid.origin_xyz == pytest.approx((-0.002, 0.050, 0.200))
    assert images.read_grid(path) == grid


def test_axes_in_another_order_keep_their_names(tmp_path):
    """An array stored as x, y, z lies along x, y, z: the same point in space has the same value."""
    array = numbers(4, 5, 6)
    straight = images.read_image(written(tmp_path / "a.zarr", array, "zyx", scale=(3, 2, 1))).volume
    other = images.read_image(written(tmp_path / "b.zarr", array.T.copy(), "xyz", scale=(1, 2, 3))).volume
    assert other.grid.shape == (6, 5, 4)
    assert np.allclose(other.on(straight.grid).data, straight.data, atol=1e-4)  # read as between voxels


def test_an_orientation_counts(tmp_path):
    """An axis that runs left to right is the x of LPS the other way round (RFC 4 of NGFF)."""
    values = ("superior-to-inferior", "anterior-to-posterior", "left-to-right")
    names = [
        {**a, "orientation": {"type": "anatomical", "value": v}} for a, v in zip(axes_of("zyx"), values, strict=True)
    ]
    grid = images.read_grid(written(tmp_path / "a.zarr", numbers(3, 4, 5), names, scale=(1, 1, 1), shift=(7, 0, 2)))
    assert np.array_equal(np.asarray(grid.direction), np.diag([-1.0, 1.0, -1.0]))
    assert grid.origin_xyz == pytest.approx((-0.002, 0.0, -0.007))


def test_channels_and_times_are_chosen_or_refused(tmp_path):
    """Several samples beside space: one sentence names the axis; chosen ones are those."""
    array = numbers(2, 3, 4, 5, 6)
    path = written(tmp_path / "a.zarr", array, "tczyx")
    with pytest.raises(ImageError, match=r"one sample along the axis t, got 2: choose one, such as t=0"):
        images.read_image(path)
    found = images.read_image(path, series="c=2,t=1").volume
    assert np.array_equal(found.data[0].numpy(), array[1, 2])
    with pytest.raises(ImageError, match="c from 0 to 2, got 3"):
        images.read_image(path, series="c=3,t=0")
    with pytest.raises(ConfigError, match=r"such as c=0,t=2 of t, c, z, y, x, got 'q=1'"):
        images.read_image(path, series="q=1")


def test_what_cannot_be_meant_is_one_sentence(tmp_path):
    """Another version, no image, a unit that is no length, a scale of 0, an array that is missing."""
    with pytest.raises(ImageError, match=r"NGFF of version 0.4 or 0.5, got 0.3"):
        images.read_image(written(tmp_path / "a.zarr", numbers(3, 3, 3), version="0.3"))
    zarr.open_group(str(tmp_path / "b.zarr"), mode="w")
    with pytest.raises(ImageError, match="without multiscales"):
        images.read_image(tmp_path / "b.zarr")
    with pytest.raises(GeometryError, match=r"a unit of .* of axis z, got second"):
        images.read_image(written(tmp_path / "c.zarr", numbers(3, 3, 3), unit="second"))
    with pytest.raises(GeometryError, match="a scale above 0"):
        images.read_image(written(tmp_path / "d.zarr", numbers(3, 3, 3), scale=(1, 0, 1)))
    path = written(tmp_path / "e.zarr", numbers(3, 3, 3))
    zarr.open_group(str(path), mode="r+").attrs["ome"] = {
        "version": "0.5", "multiscales": [{"axes": axes_of("zyx"), "datasets": [{"path": "none"}]}],
    }  # fmt: skip
    with pytest.raises(ImageError, match="an array none, got none"):
        images.read_image(path)


def test_no_unit_is_said(tmp_path, caplog):
    """Lengths without a unit are mm, with a warning."""
    with caplog.at_level(logging.WARNING, logger="semreg"):
        grid = images.read_image(written(tmp_path / "a.zarr", numbers(3, 3, 3), unit="", scale=(2, 2, 2))).volume.grid
    assert grid.spacing_xyz == (2.0, 2.0, 2.0)
    assert "have no unit: mm are assumed" in caplog.text


def pyramid(tmp_path, shape=(20, 36, 70)):
    """One that is written block by block, and its samples."""
    values = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    grid = Grid(tuple(shape)[::-1], (0.5, 0.6, 0.7), (1.0, -2.0, 3.0), ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    writer = PyramidWriter(tmp_path / "p.ome.zarr", grid, "float32", chunk=16)
    writer.create()
    for box in writer.boxes():
        writer.write(box, values[tuple(slice(*span) for span in box)])
    for level in range(1, len(writer.grids)):
        for box in writer.boxes(level):
            writer.coarsen(level, box)
    return writer, values, grid


def test_what_is_written_is_read_again(tmp_path):
    """Samples and grids of all resolutions; the coarser ones are means of blocks and lie at their centres."""
    writer, values, grid = pyramid(tmp_path)
    found = open_pyramid(writer.path)
    assert [level.grid.shape for level in found.levels] == [g.shape for g in writer.grids]
    assert found.notes == ()
    assert np.array_equal(found.finest.whole().data[0], values)
    assert np.allclose(found.finest.grid.index_to_point(), grid.index_to_point())
    coarse = found.levels[1]
    assert np.allclose(coarse.whole().data[0, 3, 4, 5], values[6:8, 8:10, 10:12].mean(), rtol=1e-6)
    centre = grid.index_to_point() @ [6.5, 8.5, 10.5, 1]
    assert np.allclose(coarse.grid.index_to_point() @ [3, 4, 5, 1], centre)
    box = found.finest.read([3, 5, 7], [9, 8, 20])
    assert np.array_equal(box.data[0], values[3:9, 5:8, 7:20])
    assert np.allclose(box.grid.origin_xyz, (grid.index_to_point() @ [3, 5, 7, 1])[:3])


def test_other_readers_read_what_is_written(tmp_path):
    """The reader of ome-zarr sees the same arrays, and its models accept the metadata."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models import open_ome_zarr

    writer, values, _ = pyramid(tmp_path)
    node = next(iter(Reader(parse_url(writer.path))()))
    assert np.array_equal(np.asarray(node.data[0]), values)
    assert open_ome_zarr(zarr.open_group(str(writer.path), mode="r")).ome_zarr_version == "0.5"


def test_means_of_blocks_stand_for_a_missing_resolution(tmp_path):
    """Where the coarsest resolution is too large, means of it are read, block by block, at their centres."""
    array = np.random.default_rng(1).normal(size=(9, 8, 10)).astype(np.float32)
    found = open_pyramid(written(tmp_path / "a.zarr", array, scale=(1, 1, 1), unit="millimeter"))
    number, level = found.within(array.size // 8)
    assert (number, level.pooling, level.grid.shape) == (0, 2, (4, 4, 5))
    assert np.allclose(level.whole().data[0, 3, 2, 1], array[6:8, 4:6, 2:4].mean(), atol=1e-6)
    assert np.allclose(level.grid.index_to_point() @ [3, 2, 1, 1], [2.5, 4.5, 6.5, 1])
    assert np.allclose(level.read([1, 1, 1], [3, 3, 2]).data, level.whole().data[:, 1:3, 1:3, 1:2])


def test_the_door_chooses_by_memory_and_says_it(tmp_path, caplog, monkeypatch):
    """What does not fit into memory is read at a coarser resolution, and the message names the command for more."""
    writer, values, _ = pyramid(tmp_path)
    monkeypatch.setattr(door, "available_bytes", lambda: values.size * door.BYTES_A_VOXEL)
    with caplog.at_level(logging.WARNING, logger="semreg"):
        image = images.read_image(writer.path)
    assert image.volume.grid.shape == writer.grids[1].shape
    assert "resolution 1" in caplog.text
    assert "semreg large" in caplog.text


def test_the_checksum_sees_a_changed_voxel(tmp_path):
    """Two images that differ in one voxel have different checksums; the same one has the same."""
    a, b = numbers(4, 4, 4), numbers(4, 4, 4)
    b[1, 2, 3] += 1
    first, second = (written(tmp_path / f"{n}.zarr", x) for n, x in (("a", a), ("b", b)))
    assert images.read_image(first).sha256 == images.read_image(first).sha256 != images.read_image(second).sha256


@pytest.mark.parametrize("planar", [False, True])
def test_a_whole_slide_of_colours(tmp_path, planar):
    """Its pyramid in micrometres, as luminance; resolutions share their edge."""
    tifffile = pytest.importorskip("tifffile", reason="the extra semreg[zarr] is not installed")
    colours = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    path = tmp_path / "a.ome.tif"
    stored = np.moveaxis(colours, -1, 0).copy() if planar else colours
    config = "separate" if planar else "contig"
    names = {"axes": "SYX" if planar else "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.4,
             "PhysicalSizeYUnit": "µm"}  # fmt: skip
    halves = stored[:, ::2, ::2] if planar else stored[::2, ::2]
    with tifffile.TiffWriter(path) as file:
        file.write(stored, subifds=1, metadata=names, photometric="rgb", planarconfig=config, tile=(16, 16))
        file.write(halves, subfiletype=1, photometric="rgb", planarconfig=config, tile=(16, 16))
    found = open_pyramid(path)
    assert [level.grid.shape for level in found.levels] == [(64, 96), (32, 48)]
    grey = colours @ np.array([0.299, 0.587, 0.114])
    assert np.allclose(images.read_image(path).volume.data[0], grey, atol=0.01)
    assert found.finest.grid.spacing_xyz == pytest.approx((0.0005, 0.0004))
    assert np.allclose(found.levels[1].read([2, 3], [9, 20]).data[0], grey[::2, ::2][2:9, 3:20], atol=0.01)
    corners = [level.grid.corners_xyz()[0] for level in found.levels]
    assert np.allclose(corners[0], corners[1])
    assert np.allclose(found.finest.coarsened(2).whole().data[0, 1, 2], grey[2:4, 4:6].mean(), atol=0.01)
