"""Promises of ``semreg evaluate``: it finds what it needs, numbers are those of the library, what is wrong is said."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import (
    centre,
    grid_at,
    make_grid,
    noise_volume,
    points_of,
    rotation,
    sitk_resample,
    sitk_transform,
    smooth_field,
)
from run_records import input_of, make_run, write_run
from semreg.cli import main
from semreg.core.fields import Field, Volume
from semreg.errors import ImageError
from semreg.io.files import checksum, write_field, write_image, write_transform
from semreg.quality import Evaluation, evaluate, read_label_names, read_landmarks, read_result
from semreg.quality.overlap import LabelOverlap, LabelOverlaps, MeanOverlap, Overlap
from semreg.quality.summary import table_of
from semreg.transforms import read_points

FIXED = make_grid((16, 15, 14), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
MOVING = grid_at(centre(FIXED), (22, 21, 20), (1.2, 1.3, 1.7), rotation(3, -8.0))
FIELD = Field(smooth_field(FIXED).vox.float(), FIXED)
TURN = sitk.Euler3DTransform((-25.0, 20.0, 86.0), 0.05, -0.08, 0.1, (0.4, -0.5, 0.6))


@pytest.fixture(name="run")
def run_evaluate(run):
    """``semreg evaluate`` in this process: exit code, standard output, standard error."""
    return partial(run, "evaluate")


def points():
    """Some points inside the fixed grid, one a row."""
    return points_of(FIXED)[:, 4:-4:2, 4:-4:3, 4:-4:4].flatten(1).numpy().T


def moved():
    """Where the transform brings them, but for half a mm."""
    return np.add([sitk_transform(FIELD).TransformPoint(p) for p in points().tolist()], (0.3, 0.0, -0.4))


def save(path, values, names=None):
    """Points (N, D) as CSV."""
    axes = "xyz"[: values.shape[1]]
    rows = [[f"{v:.6f}" for v in row] for row in values]
    lines = [",".join(axes)] + [",".join(row) for row in rows]
    if names is not None:
        lines = [f"{name},{line}" for name, line in zip(["name", *names], lines, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def labels():
    """A label map on the fixed grid, and what the transform makes of it on the moving one."""
    data = torch.zeros(1, *FIXED.shape)
    data[0, 3:8, 3:9, 3:9] = 2
    data[0, 8:12, 5:12, 7:13] = 5
    fixed = Volume(data, FIXED)
    back = FIELD.inverse(MOVING)
    read = sitk_resample(fixed, MOVING, sitk_transform(back), nearest=True, outside=0.0)
    return fixed, Volume(torch.from_numpy(read)[None], MOVING)


@pytest.fixture
def folder(tmp_path):
    """A folder as ``register`` leaves it, images, points and labels beside it."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    for name, grid, seed in (("fixed", FIXED, 0), ("moving", MOVING, 1)):
        write_image(Volume((noise_volume(grid, seed=seed).data * 100).float(), grid), data / f"{name}.nrrd", "int16")
    for name, volume in zip(("fixed", "moving"), labels(), strict=True):
        write_image(volume, data / f"{name}_labels.nii.gz", "uint8")
    mask = torch.zeros(1, *FIXED.shape)
    mask[0, 2:-3, 3:-2, 2:-4] = 1
    write_image(Volume(mask, FIXED), data / "mask.nii.gz", "uint8")
    save(data / "fixed.csv", points())
    save(data / "moving.csv", moved())
    write_transform(FIELD, out / "transform.h5")
    write_transform(FIELD.inverse(MOVING), out / "inverse.h5")
    inputs = {
        name: input_of(data / file)
        for name, file in (("fixed", "fixed.nrrd"), ("moving", "moving.nrrd"), ("fixed_mask", "mask.nii.gz"))
    }
    write_run(out, make_run(inputs))
    return tmp_path


def test_folder_of_a_registration(run, folder):
    """A folder needs nothing else: images, mask and inverse are found; JSON and CSV are written beside the record."""
    data, out = folder / "data", folder / "out"
    code, text, error = run(
        out, "--fixed-landmarks", data / "fixed.csv", "--moving-landmarks", data / "moving.csv",
        "--labels", data / "fixed_labels.nii.gz", data / "moving_labels.nii.gz", "--tolerance", "1.5", "--all",
    )  # fmt: skip
    assert (code, error) == (0, "")
    written = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    wanted = evaluate(
        out / "transform.h5", fixed=data / "fixed.nrrd", moving=data / "moving.nrrd",
        fixed_mask=data / "mask.nii.gz", inverse=out / "inverse.h5", landmarks=(points(), moved()), labels=labels(),
    ).to_dict()  # fmt: skip
    for name in ("jacobian", "displacement", "overlap", "similarity", "consistency"):
        assert written[name] == json.loads(json.dumps(wanted[name])), name
    assert written["jacobian"]["region"] == "mask"
    assert written["landmarks"]["after"]["mean"] == pytest.approx(0.5, abs=2e-3)
    assert written["labels"]["tolerance_mm"] == 1.5
    assert written["labels"]["mean"]["after"]["dice"] > 0.8 > written["labels"]["mean"]["before"]["dice"]
    assert written["inputs"]["fixed"] == [{"path": str(data / "fixed.nrrd"), "sha256": checksum(data / "fixed.nrrd")}]
    assert {"transform", "moving", "mask", "inverse", "labels", "fixed_landmarks"} < set(written["inputs"])
    lines = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    assert lines["landmark error, mean of 18"].endswith("\t0.50 mm")
    assert lines["5, surface Dice at 1.5 mm"].endswith(f"\t{written['labels']['each'][1]['after']['surface_dice']:.3f}")
    assert (
        (out / "evaluation.csv")
        .read_text(encoding="utf-8")
        .startswith("group,name,measure,unit,before,after\nlandmarks,,mean,mm,")
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.csv", "evaluation.json", "inverse.h5", "record.json", "report.html", "transform.h5",
    ]  # fmt: skip
    assert written["verdict"]["level"] in ("PASS", "REVIEW", "FAIL")
    assert f"verdict: {written['verdict']['level']}" in text


def test_record_with_relative_paths(run, folder, monkeypatch):
    """A record made with relative paths is understood from where it was made, and from elsewhere."""
    out = folder / "out"
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    for name, file in (("fixed", "fixed.nrrd"), ("moving", "moving.nrrd"), ("fixed_mask", "mask.nii.gz")):
        record["inputs"][name]["path"] = f"data/{file}"
    (out / "record.json").write_text(json.dumps(record))
    for place in (folder, folder / "data", folder.parent):
        monkeypatch.chdir(place)
        assert read_result(out).located("fixed").resolve() == folder / "data" / "fixed.nrrd"
    assert run(out, "--no-similarity", "--quiet") == (0, "", "")


def test_another_image_than_the_registered_one_is_said(run, folder):
    """Where an image is not the one that the record knows, a warning says so."""
    write_image(Volume(noise_volume(FIXED, seed=7).data.float(), FIXED), folder / "data" / "fixed.nrrd", "float32")
    code, _, error = run(folder / "out", "--no-similarity")
    assert code == 0
    assert error.count("\n") == 1
    assert "fixed.nrrd is not the fixed image that was registered" in error


def test_transforms_without_images(run, folder):
    """Landmarks need no image; several transforms are applied in their order; nothing is written without a folder."""
    write_field(FIELD, folder / "field.nii.gz")
    sitk.WriteTransform(TURN, str(folder / "turn.tfm"))
    target = np.array([TURN.TransformPoint(p) for p in moved().tolist()])
    save(folder / "there.csv", target)
    before = sorted(folder.rglob("*"))
    arguments = ["--fixed-landmarks", folder / "data" / "fixed.csv", "--moving-landmarks", folder / "there.csv"]
    code, text, _ = run(
        folder / "field.nii.gz", folder / "turn.tfm", *arguments, "--initial", folder / "turn.tfm", "--json"
    )
    found = json.loads(text)
    assert code == 0
    assert found["landmarks"]["after"]["mean"] == pytest.approx(0.5, abs=2e-3)
    wanted = [
        np.linalg.norm(np.subtract(TURN.TransformPoint(p), q)) for p, q in zip(points().tolist(), target, strict=True)
    ]
    assert found["landmarks"]["before"]["mean"] == pytest.approx(np.mean(wanted), abs=1e-4)
    assert found["similarity"] is None
    assert found["deformation"]["mean_mm"] == pytest.approx(float(FIELD.mm().norm(dim=0).mean()), abs=1e-3)
    assert found["displacement"]["mean_mm"] != pytest.approx(found["deformation"]["mean_mm"], abs=3e-3)
    assert sorted(folder.rglob("*")) == before
    code, _, error = run(folder / "turn.tfm", *arguments, "--fail-on", "fail")
    assert code == 2
    assert "no verdict: give --fixed and --moving" in error


def test_csv_and_output_folder(run, folder):
    """--csv prints the rows that -o writes; a folder is made where it is missing."""
    code, text, _ = run(folder / "out" / "transform.h5", "--csv", "-o", folder / "new" / "place")
    assert code == 0
    assert (folder / "new" / "place" / "evaluation.csv").read_text(encoding="utf-8") == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["group"] for row in rows} == {"jacobian", "displacement"}


def test_several_files_of_landmarks(run, folder):
    """Several files are one set in the order of their flags, with the names that they give."""
    first = save(folder / "a.csv", points()[:5], "ABCDE"), save(folder / "b.csv", moved()[[1, 0, 2, 3, 4]], "BACDE")
    second = folder / "data" / "fixed.csv", folder / "data" / "moving.csv"
    flags = [
        flag for pair in (first, second) for flag in zip(("--fixed-landmarks", "--moving-landmarks"), pair, strict=True)
    ]
    code, text, _ = run(folder / "out" / "transform.h5", *[item for flag in flags for item in flag], "--json")
    found = json.loads(text)["landmarks"]
    assert code == 0
    assert found["count"] == 23
    assert [point["name"] for point in found["points"]][:7] == ["A", "B", "C", "D", "E", "6", "7"]
    assert found["after"]["maximum"] == pytest.approx(0.5, abs=2e-3)  # the names hold where the order differs


def test_points_of_slicer_have_names(folder):
    """FCSV and MRK.JSON are read in LPS with their labels; RAS becomes LPS, and a CSV file with --ras."""
    ras = points()[:3] * [-1, -1, 1]
    rows = "".join(f"id{n},{x:.6f},{y:.6f},{z:.6f},0,0,0,1,1,1,0,tip {n},,\n" for n, (x, y, z) in enumerate(ras))
    (folder / "a.fcsv").write_text(
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = RAS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n" + rows
    )
    markups = [{"label": f"tip {n}", "position": list(p)} for n, p in enumerate(points()[:3])]
    (folder / "a.mrk.json").write_text(json.dumps({"markups": [{"coordinateSystem": "LPS", "controlPoints": markups}]}))
    found = read_landmarks([folder / "a.fcsv"], [folder / "a.mrk.json"])
    assert found.names == ("tip 0", "tip 1", "tip 2")
    np.testing.assert_allclose(found.fixed, points()[:3], atol=1e-5)
    np.testing.assert_allclose(found.moving, points()[:3], atol=1e-5)
    save(folder / "ras.csv", ras)
    np.testing.assert_allclose(
        read_landmarks([folder / "ras.csv"], [folder / "ras.csv"], ras=True).fixed, points()[:3], atol=1e-5
    )
    (folder / "old.fcsv").write_text("".join(f"F-{n},1,2,{n}\n" for n in range(3)))
    assert read_points(folder / "old.fcsv").names == ()


def test_names_of_labels(run, folder):
    """Names from a table, of CSV or of BIDS, stand for the numbers."""
    (folder / "names.csv").write_text("label,name\n2,liver\n5,left kidney\n")
    (folder / "names.tsv").write_text("index\tname\tcolor\n2\tliver\t#ff0000\n5\tleft kidney\t#00ff00\n")
    maps = [folder / "data" / f"{name}_labels.nii.gz" for name in ("fixed", "moving")]
    for name in ("names.csv", "names.tsv"):
        assert read_label_names(folder / name) == {2: "liver", 5: "left kidney"}
        code, text, _ = run(folder / "out" / "transform.h5", "--labels", *maps, "--names", folder / name)
        assert code == 0
        assert re.search(r"^left kidney, Dice and HD95\t[\d.]+, [\d.]+ mm\t[\d.]+, [\d.]+ mm$", text, re.MULTILINE)
        assert text.count("left kidney") == 1
        assert "--all" in text
        code, text, _ = run(folder / "out" / "transform.h5", "--labels", *maps, "--names", folder / name, "--all")
        assert code == 0
        assert text.count("left kidney") == 4
        assert "left kidney, HD95\t" in text
        assert "--all" not in text
    (folder / "bad.csv").write_text("label,name\ntwo,liver\n")
    with pytest.raises(ImageError, match="whole number and a name in line 2"):
        read_label_names(folder / "bad.csv")


def test_of_many_labels_the_worst_are_shown():
    """More than 12 labels: the mean and the three of lowest Dice, the worst first; one without a measure is none."""
    sides = [Overlap(dice=None if n == 4 else 0.3 + 0.05 * ((7 * n) % 13), hd95_mm=2.0 + n) for n in range(13)]
    each = tuple(LabelOverlap(label=n, name=f"part {n}", before=side, after=side) for n, side in enumerate(sides))
    table = LabelOverlaps(tolerance_mm=2.0, each=each, mean=MeanOverlap(before=sides[0], after=sides[0]))
    shown = table_of(Evaluation(labels=table), everything=False)
    worst = [line for line in shown if line[0].startswith("worst")]
    assert [line[0] for line in worst] == [
        "worst 1 of 13: part 0, Dice and HD95", "worst 2 of 13: part 2, Dice and HD95",
        "worst 3 of 13: part 6, Dice and HD95",
    ]  # fmt: skip
    assert worst[1][2] == "0.350, 4.00 mm"
    assert sum("part" in line[0] for line in shown) == 3
    few = table_of(Evaluation(labels=replace(table, each=each[1:])), everything=False)
    assert ("part 4, Dice and HD95", "-, 6.00 mm", "-, 6.00 mm") in few
    assert sum("part" in line[0] for line in few) == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.h5"], "there is no such file"),
        (["data"], "the output folder of semreg register"),
        (["out", "out/transform.h5"], "one folder of results or transform files"),
        (["out", "--fixed", "gone.nrrd"], "gone.nrrd: there is no such file"),
        (["out", "--fixed-landmarks", "data/fixed.csv"], "as many files of fixed as of moving landmarks, got 1 and 0"),
        (["out", "--fixed-landmarks", "data/fixed.csv", "--moving-landmarks", "few.csv"], "as many points in"),
        (["out", "--fixed-landmarks", "flat.csv", "--moving-landmarks", "flat.csv"], "landmarks of shape"),
        (["out", "--fixed-landmarks", "nan.csv", "--moving-landmarks", "nan.csv"], "finite coordinates"),
        (["out", "--labels", "data/mask.nii.gz", "data/moving_labels.nii.gz"], "labels in common"),
        (["out", "--mask", "empty.nrrd"], "a mask with voxels above 0"),
        (["out", "--tolerance", "-1"], "a tolerance >= 0 mm"),
        (["out", "--initial", "flat.tfm"], "an initial transform in 3-D, got one in 2-D"),
        (["out", "-o", "data/fixed.nrrd"], "expected to write to"),
        (["out", "--names", "data/fixed.csv"], "columns label and name"),
    ],
)
def test_what_is_wrong_is_said(run, folder, monkeypatch, arguments, said):
    """One sentence on the standard error, exit code 2, and no file."""
    monkeypatch.chdir(folder)
    save(folder / "few.csv", points()[:3])
    save(folder / "flat.csv", points()[:, :2])
    (folder / "nan.csv").write_text("x,y,z\n1,2,nan\n")
    write_image(Volume(torch.zeros(1, *FIXED.shape), FIXED), folder / "empty.nrrd", "uint8")
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(folder / "flat.tfm"))
    code, out, error = run(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not list(folder.rglob("evaluation.*"))


def test_inputs_are_not_written_over(run, folder):
    """A file that is read is not replaced by the output."""
    save(folder / "out" / "evaluation.csv", points())
    code, _, error = run(
        folder / "out",
        "--fixed-landmarks",
        folder / "out" / "evaluation.csv",
        "--moving-landmarks",
        folder / "data" / "moving.csv",
    )
    assert code == 2
    assert "would be written over" in error


def test_what_register_wrote(run, tmp_path, capfd):
    """A folder that ``semreg register`` wrote for a pair in 2-D is measured; its page keeps the uncertainty."""
    grid = make_grid((44, 40), (0.8, 1.1), (3.0, -7.0), rotation(2))
    fixed = noise_volume(grid)
    for _ in range(3):
        fixed = Volume(torch.nn.functional.avg_pool2d(fixed.data[None], 3, 1, 1)[0], grid)
    write_image(Volume((fixed.data * 1000).float(), grid), tmp_path / "fixed.nii.gz", "int16")
    read = sitk_resample(fixed, grid, sitk.TranslationTransform(2, (-1.6, 1.1)), outside=0.0)
    write_image(Volume(torch.from_numpy(read * 1000)[None].float(), grid), tmp_path / "moving.nii.gz", "int16")
    with pytest.raises(SystemExit):
        main(
            [
                "register",
                str(tmp_path / "fixed.nii.gz"),
                str(tmp_path / "moving.nii.gz"),
                "-o",
                str(tmp_path / "out"),
                "--inverse",
                "--quiet",
            ]
        )
    capfd.readouterr()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    inner = points_of(grid)[:, 10:-10:5, 10:-10:5].flatten(1).numpy().T
    save(tmp_path / "fixed.csv", inner)
    save(tmp_path / "moving.csv", np.add(inner, (1.6, -1.1)))
    code, text, error = run(
        tmp_path / "out",
        "--fixed-landmarks",
        tmp_path / "fixed.csv",
        "--moving-landmarks",
        tmp_path / "moving.csv",
        "--json",
    )
    assert (code, error) == (0, "")
    anew = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert anew != page
    assert 'data-mode="uncertainty"' in page
    assert 'data-mode="uncertainty"' in anew
    found = json.loads(text)
    assert found["landmarks"]["before"]["mean"] == pytest.approx(np.hypot(1.6, 1.1), abs=1e-3)
    assert found["landmarks"]["after"]["mean"] < 0.4
    assert found["similarity"]["correlation"]["after"] > 0.95 > found["similarity"]["correlation"]["before"]
    assert found["similarity"]["mind"]["after"] < found["similarity"]["mind"]["before"]
    assert found["consistency"]["fixed"]["mean_mm"] < 0.1


def test_landmarks_of_pictures_are_pixels(run, tmp_path):
    """Points of CSV files on pictures are pixels, and the page says so; with --landmarks-in mm they are not."""
    spacing = (0.5, 0.25)
    image = sitk.GetImageFromArray((np.arange(40 * 30).reshape(30, 40) % 251).astype(np.uint8))
    image.SetSpacing(spacing)
    for name in ("fixed.png", "moving.png"):
        sitk.WriteImage(image, str(tmp_path / name))
    (tmp_path / "a.csv").write_text("x,y\n10,20\n30,8\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("x,y\n14,20\n30,16\n", encoding="utf-8")
    sitk.WriteTransform(sitk.TranslationTransform(2, (2.0, 0.0)), str(tmp_path / "t.tfm"))
    seen = sitk.ReadImage(str(tmp_path / "fixed.png")).GetSpacing()

    images = ("--fixed", tmp_path / "fixed.png", "--moving", tmp_path / "moving.png")

    def errors(*more):
        code, text, error = run(
            tmp_path / "t.tfm", *images,
            "--fixed-landmarks", tmp_path / "a.csv", "--moving-landmarks", tmp_path / "b.csv", "--json", *more,
        )  # fmt: skip
        assert (code, error) == (0, ""), error
        found = json.loads(text)
        return [(point["before"], point["after"]) for point in found["landmarks"]["points"]], found["notes"]

    wanted = [(4 * seen[0], abs(4 * seen[0] - 2)), (8 * seen[1], float(np.hypot(2, 8 * seen[1])))]
    points, notes = errors()
    assert points == [pytest.approx(each, abs=1e-6) for each in wanted]
    assert any("count as pixels" in note for note in notes)
    points, notes = errors("--landmarks-in", "mm")
    assert points == [pytest.approx((4, 2)), pytest.approx((8, float(np.hypot(2, 8))))]
    assert not any("count as pixels" in note for note in notes)
    given = [(tmp_path / name, places) for name, places in (("a", [[10, 20], [30, 8]]), ("b", [[14, 20], [30, 16]]))]
    for path, places in given:  # QuPath counts from the corner of the first pixel
        shape = {"type": "MultiPoint", "coordinates": [[x + 0.5, y + 0.5] for x, y in places]}
        path.with_suffix(".geojson").write_text(json.dumps([{"type": "Feature", "geometry": shape}]), encoding="utf-8")
        path.with_suffix(".txt").write_text(f"index\n2\n{places[0][0]} {places[0][1]}\n{places[1][0]} {places[1][1]}")
    for ending in ("geojson", "txt"):
        sides = zip(("--fixed-landmarks", "--moving-landmarks"), given, strict=True)
        named = [word for flag, (path, _) in sides for word in (flag, path.with_suffix(f".{ending}"))]
        code, text, error = run(tmp_path / "t.tfm", *named, *images, "--json")
        assert code == 0, error
        found = json.loads(text)["landmarks"]["points"]
        assert [(each["before"], each["after"]) for each in found] == [pytest.approx(each, abs=1e-6) for each in wanted]
        code, _, error = run(tmp_path / "t.tfm", *named)
        assert (code, "expected both images" in error) == (2, True)
    mixed = ("--fixed-landmarks", tmp_path / "a.csv", "--moving-landmarks", tmp_path / "b.txt")
    assert "in one unit, got mm and voxels" in run(tmp_path / "t.tfm", *mixed, *images)[2]


def test_the_mask_of_the_moving_image_counts_for_the_verdict(run, folder):
    """The verdict of a folder keeps to the moving mask of its record, as the registration did."""
    mask = torch.zeros(1, *MOVING.shape)
    mask[0, :, :, : MOVING.shape[2] // 3] = 1
    path = folder / "data" / "moving_mask.nii.gz"
    write_image(Volume(mask, MOVING), path, "uint8")

    def overlap(*more):
        code, text, error = run(folder / "out", "--json", "--no-report", *more)
        assert (code, error) == (0, "")
        return next(check["value"] for check in json.loads(text)["verdict"]["checks"] if check["name"] == "match")

    without, given = overlap(), overlap("--moving-mask", path)
    record = json.loads((folder / "out" / "record.json").read_text(encoding="utf-8"))
    record["inputs"]["moving_mask"] = {"path": str(path), "sha256": checksum(path)}
    (folder / "out" / "record.json").write_text(json.dumps(record))
    assert overlap() == given != without


def test_a_changed_image_is_said_on_the_page(run, folder):
    """Where an image is not the one that was registered, the page says so."""
    volume = Volume(noise_volume(MOVING, seed=7).data.float() * 50, MOVING)
    write_image(volume, folder / "data" / "moving.nrrd", "int16")
    code, _, error = run(folder / "out", "-q")
    assert code == 0, error
    assert "its content differs" in (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_a_linear_transform_alone_is_refused(run, tmp_path):
    """Without images and landmarks there is nothing to measure a linear transform with."""
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 0.0, 0.0)), str(tmp_path / "t.tfm"))
    code, text, error = run(tmp_path / "t.tfm")
    assert (code, text) == (2, "")
    assert "--fixed" in error


def test_a_field_with_gaps_is_refused(run, tmp_path):
    """A field in NIfTI with NaN, of which ITK makes 0 in silence, is refused in one sentence."""
    path = tmp_path / "field.nii.gz"
    write_field(FIELD, path)
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(gzip.compress(bytes(data)))
    code, _, error = run(path)
    assert code == 2
    assert "NaN" in error
    assert error.count("\n") == 1
