"""Promises of ``semreg large``, and of ``register`` and ``apply`` on OME-Zarr: from files to files, by commands."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from semreg.config import RegistrationConfig
from semreg.phantom import make_pair, make_slides

pytest.importorskip("zarr", reason="the extra semreg[zarr] is not installed")
pytest.importorskip("ome_zarr", reason="the extra semreg[zarr] is not installed")

from semreg.io.ngff.opening import open_pyramid
from semreg.io.ngff.writing import PyramidWriter
from semreg.registration.blocks.plan import Input, Options, make_plan
from semreg.registration.blocks.run import Pair, identity

QUICK = ("--align", "none", "--set", "refine.iterations=3", "--set", "refine.symmetric=false",
         "--set", "uncertainty.enabled=false", "--set", "coarse.reach_mm=12")  # fmt: skip


def write(path, volume):
    writer = PyramidWriter(path, volume.grid, "int16", chunk=32)
    writer.create()
    for box in writer.boxes():
        writer.write(box, volume.data[0][tuple(slice(*span) for span in box)].numpy().astype(np.int16))
    for level in range(1, len(writer.grids)):
        for box in writer.boxes(level):
            writer.coarsen(level, box)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two phantoms of 80³ voxels as OME-Zarr, with resolutions of 80³ and 40³."""
    folder = tmp_path_factory.mktemp("pair")
    made = make_pair(size=80, frames="isotropic", displacement_mm=6.0)
    return write(folder / "fixed.ome.zarr", made.fixed), write(folder / "moving.ome.zarr", made.moving), made


def test_large_registers_and_apply_repeats_it(run, pair, tmp_path):
    """The plan is said, the files are there, landmarks are nearer; ``apply`` makes the same warped image again."""
    fixed, moving, made = pair
    arguments = ("large", fixed, moving, "-o", tmp_path / "out", "--memory", "400MB", "--block", "48", *QUICK)
    code, text, err = run(*arguments, "--dry-run")
    assert code == 0, err
    assert "in one piece: 40 × 40 × 40 voxels" in text
    assert "in blocks of 48 voxels: 80 × 80 × 80 voxels" in text
    assert not (tmp_path / "out").exists()
    code, text, err = run(*arguments)
    assert code == 0, err
    assert "8 blocks" in text
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert record["levels"][0]["size"] == [80, 80, 80]
    transform = sitk.ReadTransform(str(tmp_path / "out" / "transform.h5"))
    found = np.array([transform.TransformPoint(p) for p in made.fixed_points.tolist()])
    before, after = (np.linalg.norm(x - made.moving_points.numpy(), axis=1).mean()
                     for x in (made.fixed_points.numpy(), found))  # fmt: skip
    assert after < 0.6 * before
    code, _, err = run(
        "apply", tmp_path / "out" / "transform.h5", "-i", moving, "-r", fixed, "-o", tmp_path / "again.ome.zarr",
        "--background", record["coarse"]["background"],
    )  # fmt: skip
    assert code == 0, err
    one, other = (open_pyramid(tmp_path / name) for name in ("out/warped.ome.zarr", "again.ome.zarr"))
    away = (one.finest.whole().data - other.finest.whole().data).abs()
    assert float(away.max()) <= 1
    assert float((away > 0).float().mean()) < 0.01
    assert [level.grid.shape for level in one.levels] == [level.grid.shape for level in other.levels]


def test_apply_in_chunks_is_what_itk_does(run, pair, tmp_path):
    """Block by block, through any transform, onto another grid; labels stay labels; ITK on the whole is the oracle."""
    fixed, moving, made = pair
    affine = sitk.Euler3DTransform((12.0, -37.0, 84.0), 0.2, -0.1, 0.15, (5.0, -3.0, 2.0))
    sitk.WriteTransform(affine, str(tmp_path / "a.tfm"))
    for name, method, more in (("linear", sitk.sitkLinear, ()), ("nearest", sitk.sitkNearestNeighbor, ())):
        out = tmp_path / f"{name}.ome.zarr"
        code, _, err = run("apply", tmp_path / "a.tfm", "-i", moving, "-r", fixed, "-o", out,
                              "--interpolation", name, "--background", "-7", *more)  # fmt: skip
        assert code == 0, err
        found = open_pyramid(out).finest
        expected = sitk.Resample(made.moving.to_sitk("int16"), made.fixed.to_sitk("int16"), affine, method, -7.0)
        away = np.abs(found.whole().data[0].numpy() - sitk.GetArrayFromImage(expected))
        assert float((away > 1).mean()) < 1e-3  # ITK cuts decimals off, and rounds a half otherwise
        assert float(np.median(away)) <= 1
    code, _, err = run("apply", tmp_path / "a.tfm", "-i", moving, "-r", fixed, "-o", out)
    assert (code, "remove it first" in err) == (2, True)


def test_register_takes_ome_zarr(run, pair, tmp_path):
    """An image that fits into memory is an image as any other."""
    fixed, moving, made = pair
    coarse = ("--no-report", "--set", "features.spacing_mm=5")
    code, _, err = run("register", fixed, moving, "-o", tmp_path, *QUICK, *coarse)
    assert code == 0, err
    warped = sitk.ReadImage(str(tmp_path / "warped.nii.gz"))
    assert warped.GetSize() == made.fixed.grid.size_xyz
    assert warped.GetPixelIDTypeAsString() == "16-bit signed integer"


def test_what_blocks_cannot_do_is_one_sentence(run, pair, tmp_path):
    """A model that is no formula, too little memory, two places to run at, no image: exit code 2, nothing written."""
    fixed, moving, _ = pair

    def refused(said, *more, image=fixed):
        code, _, err = run("large", image, moving, "-o", tmp_path / "out", *more)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out" / "record.json").exists()

    refused("expected one formula, mind or intensity", "--model", "net.pt")
    refused("raise --block or --memory", "--memory", "332MB")
    refused("--jobs or --scheduler", "--jobs", "2", "--scheduler", "tcp://127.0.0.1:9")
    refused("expected a Dask scheduler at tcp://127.0.0.1:9", "--scheduler", "tcp://127.0.0.1:9")
    refused("expected --finest from 0 to 1", "--finest", "2")
    (tmp_path / "empty").mkdir()
    refused("expected a group of Zarr", image=tmp_path / "empty")


def test_whole_slides_are_registered_in_blocks(run, tmp_path):
    """Two stains of one slice as pyramids of TIFF, 2-D: landmarks come to within some pixels."""
    tifffile = pytest.importorskip("tifffile", reason="the extra semreg[zarr] is not installed")
    made = make_slides(size=256, degrees=0.0, displacement_mm=6.0)
    names = []
    for name, image in (("fixed", made.fixed), ("moving", made.moving)):
        names.append(tmp_path / f"{name}.ome.tif")
        pixels = image.data[0].numpy().astype(np.uint8)
        size = {"axes": "YX", **{f"PhysicalSize{a}": 1.0 for a in "XY"}, **{f"PhysicalSize{a}Unit": "mm" for a in "XY"}}
        with tifffile.TiffWriter(names[-1]) as file:
            file.write(pixels, subifds=1, metadata=size, tile=(64, 64))
            halves = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2].reshape(
                len(pixels) // 2, 2, pixels.shape[1] // 2, 2
            )
            file.write(halves.mean((1, 3)).astype(np.uint8), subfiletype=1, tile=(64, 64))
    code, text, err = run("large", *names, "-o", tmp_path / "out", "--memory", "336MB", "--block", "96")
    assert code == 0, err
    transform = sitk.ReadTransform(str(tmp_path / "out" / "transform.h5"))
    found = np.array([transform.TransformPoint(p) for p in made.fixed_points.tolist()])
    before, after = (np.linalg.norm(x - made.moving_points.numpy(), axis=1).mean()
                     for x in (made.fixed_points.numpy(), found))  # fmt: skip
    assert after < 0.3 * before, text
    assert open_pyramid(tmp_path / "out" / "warped.ome.zarr").finest.grid.shape == made.fixed.grid.shape


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_read_is_not_written_over(run, pair, tmp_path):
    """An input where an output would be, and an output within an input, are refused, and the input stays."""
    fixed, moving, _ = pair
    shutil.copytree(moving, tmp_path / "warped.ome.zarr")
    before, whole = files_in(tmp_path), files_in(fixed)
    code, text, err = run("large", fixed, tmp_path / "warped.ome.zarr", "-o", tmp_path, *QUICK)
    assert (code, text) == (2, "")
    assert "would be written over" in err
    assert run("large", fixed, moving, "-o", fixed, *QUICK)[0] == 2
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "transform.h5"))
    before |= files_in(tmp_path)
    code, _, err = run("large", fixed, moving, "-o", tmp_path, "--initial", tmp_path / "transform.h5", *QUICK)
    assert code == 2
    assert "transform.h5" in err
    code, _, err = run("apply", tmp_path / "transform.h5", "-i", moving, "-r", fixed, "-o", moving / "new.zarr")
    assert code == 2
    assert "lies within" in err
    assert files_in(tmp_path) == before
    assert files_in(fixed) == whole


def test_what_is_refused_leaves_nothing(run, pair, tmp_path):
    """A missing image, and a start in 2-D: no folder, so that the corrected command is not taken for another run."""
    fixed, moving, _ = pair
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(tmp_path / "flat.tfm"))
    for images in ((tmp_path / "none.zarr", moving), (fixed, moving)):
        code, _, err = run("large", *images, "-o", tmp_path / "out", "--initial", tmp_path / "flat.tfm", *QUICK)
        assert code == 2, err
        assert not (tmp_path / "out").exists()


def test_apply_into_chunks_says_what_is_wrong(run, pair, tmp_path):
    """Which image is missing, which is of no chunks, and which has chunks that cannot be read."""
    fixed, moving, _ = pair
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "a.tfm"))
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkInt16), str(tmp_path / "small.nii.gz"))
    broken = tmp_path / "broken.ome.zarr"
    shutil.copytree(moving, broken)
    chunk = max((path for path in broken.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    chunk.write_bytes(b"no chunk at all" * 40)
    out = tmp_path / "out.ome.zarr"
    said = {tmp_path / "none.zarr": "no such file", tmp_path / "small.nii.gz": "OME-Zarr", broken: "copy the image"}
    for source, words in said.items():
        code, text, err = run("apply", tmp_path / "a.tfm", "-i", source, "-r", fixed, "-o", out)
        assert (code, text) == (2, ""), err
        assert words in err
        assert not out.exists()


def test_another_start_is_another_run(pair, tmp_path):
    """What an ended run has left is not taken for a start that was written anew under its name."""
    fixed, moving, _ = pair
    path = tmp_path / "start.tfm"
    found = []
    for x in (1.0, 2.0):
        sitk.WriteTransform(sitk.TranslationTransform(3, (x, 2.0, 3.0)), str(path))
        whole = Pair(Input(str(fixed)), Input(str(moving)), sitk.ReadTransform(str(path)), path)
        plan = make_plan(whole.fixed, whole.moving, RegistrationConfig(), Options(memory_bytes=400_000_000))
        found.append(identity(whole, RegistrationConfig(), plan, Options(memory_bytes=400_000_000)))
    assert found[0] != found[1]
