"""From the output folder of a registration to a page and figures: the library's door and the verb ``report``."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

import run_records
from report_case import BOXES, EVALUATION, ORIGIN, PARTS, RECORD, SHIFT, VERDICT, check_of, make_case
from report_case import structure_of as structure
from run_records import input_of, read_files, write_run
from semreg import configure
from semreg.cli.report import report_command
from semreg.core.fields import Volume
from semreg.core.geometry import Grid, canonical_order
from semreg.errors import ConfigError, GeometryError, ImageError, OutputError
from semreg.io.bridge import sitk_image
from semreg.io.files import read_image, write_image, write_transform
from semreg.phantom import make_bones, make_pair
from semreg.quality import EvaluationRun, Verdict, collect_evidence, evaluate, judge, read_result
from semreg.quality.privacy import private as hidden
from semreg.registration.pipeline import register
from semreg.report import Case, FigureOptions, read_case, write_figures
from semreg.report.figures import view_of
from semreg.report.panels import show
from semreg.report.stacks import make_stacks

app = typer.Typer()
app.command()(report_command)


@pytest.fixture
def folder(tmp_path):
    """What ``semreg register`` and ``semreg evaluate`` leave, and the images beside."""
    case, out = make_case(), tmp_path / "out"
    out.mkdir()
    inputs = {}
    for role, volume in (("fixed", case.fixed), ("moving", case.moving)):
        path = tmp_path / f"{role}.nii.gz"
        write_image(volume, path)
        inputs[role] = dataclasses.replace(input_of(path), pixel_type="float32")
    write_transform(case.field, out / "transform.h5")
    write_image(case.uncertainty, out / "uncertainty.nii.gz")
    write_run(out, dataclasses.replace(RECORD, inputs=inputs))
    write_evaluation(out)
    return out


def test_folder_holds_the_case(folder):
    """Images, field, uncertainty, evaluation and verdict come from the folder and the paths in its record."""
    case, true = read_case(folder), make_case()
    assert torch.equal(case.fixed.data, true.fixed.data)
    assert torch.allclose(case.field.mm(), torch.tensor(SHIFT).reshape(3, 1, 1, 1), atol=1e-3)
    assert case.uncertainty is not None
    assert case.verdict == VERDICT
    assert case.evaluation == EvaluationRun.of(EVALUATION, verdict=VERDICT)
    assert case.record == dataclasses.replace(RECORD, inputs=case.record.inputs)
    assert case.background == 0.0
    assert case.title == "moving.nii.gz onto fixed.nii.gz"
    assert case.notes == ()


def test_verdict_of_the_record_counts_without_an_evaluation(folder):
    """Without evaluation.json the verdict in the record is shown, and no landmarks."""
    (folder / "evaluation.json").unlink()
    verdict = Verdict.of((check_of("FAIL"),))
    write_run(folder, dataclasses.replace(read_result(folder).record, verdict=verdict))
    case = read_case(folder)
    assert case.verdict == verdict
    assert case.evaluation is None


def test_moved_image_is_asked_for_by_its_flag(folder):
    """An image that is no longer where it was is named, with the flag that says where it is now; that one is read."""
    moved = folder.parent / "elsewhere.nii.gz"
    (folder.parent / "moving.nii.gz").rename(moved)
    with pytest.raises(ImageError, match=r"moving\.nii\.gz, there is no such file: say where it is with --moving"):
        read_case(folder)
    assert read_case(folder, moving=moved).names["moving"] == "elsewhere.nii.gz"
    with pytest.raises(ImageError, match=r"nowhere\.nii"):
        read_case(folder, moving=folder / "nowhere.nii")


def test_image_beside_the_record_is_found(folder):
    """A folder that was carried elsewhere with its images is read without flags."""
    for role in ("fixed", "moving"):
        (folder.parent / f"{role}.nii.gz").rename(folder / f"{role}.nii.gz")
    assert read_case(folder).names["fixed"] == "fixed.nii.gz"


def test_changed_image_is_told(folder):
    """An image whose bytes are not those that were registered is shown with a warning."""
    write_image(make_case().moving, folder.parent / "moving.nii.gz", "int16")
    (note,) = read_case(folder).notes
    assert "The moving image has changed since the registration" in note


@pytest.mark.parametrize(("name", "text", "error", "words"), [
    ("record.json", None, ConfigError, "semreg register with a record.json"),
    ("record.json", "{", ConfigError, "expected JSON in"),
    ("record.json", '{"jacobian": {}}', ConfigError, "record.json as this version writes it"),
    ("evaluation.json", "[1]", ConfigError, "expected an object"),
    ("evaluation.json", '{"landmarks": {"count": "many"}}', ConfigError, "evaluation.json as this version writes it"),
    ("transform.h5", None, GeometryError, "there is no such file"),
])  # fmt: skip
def test_broken_folders_are_refused(folder, name, text, error, words):
    """Missing and broken files are named in one sentence."""
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(error, match=words):
        read_case(folder)


def test_image_of_another_grid_is_refused(folder):
    """A fixed image that is not the registered one does not fit the uncertainty and is refused."""
    with pytest.raises(GeometryError, match="give the fixed image that was registered"):
        read_case(folder, fixed=folder.parent / "moving.nii.gz")


def test_verb_writes_the_page(folder):
    """``semreg report FOLDER`` writes report.html there and says so."""
    result = CliRunner().invoke(app, [str(folder)])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(folder / "report.html")
    assert "REVIEW" in (folder / "report.html").read_text(encoding="utf-8")


def test_verb_takes_title_labels_figures_and_place(folder):
    """Title, outlines, another place and figures do what they say."""
    case = make_case()
    labels = {role: folder.parent / f"{role}_labels.nii.gz" for role in ("fixed", "moving")}
    for role, volume in (("fixed", case.fixed), ("moving", case.moving)):
        write_image(Volume((volume.data > 60).float(), volume.grid), labels[role], "uint8")
    page = folder.parent / "page.html"
    result = CliRunner().invoke(
        app,
        [str(folder), "-o", str(page), "--title", "My pair", "--figures", "--dpi", "60", "-q",
         "--fixed-labels", str(labels["fixed"]), "--moving-labels", str(labels["moving"])],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    text = page.read_text(encoding="utf-8")
    assert "<h1>My pair</h1>" in text
    assert 'data-mode="labels"' in text
    assert (folder.parent / "figures" / "before_after.png").is_file()
    assert not (folder / "figures").exists()


@pytest.mark.parametrize("name", ["fixed.nii.gz", "moving.nii.gz", "out/transform.h5", "page"])
def test_verb_writes_over_no_image(folder, name):
    """A page has a name of a page: an image, a transform or anything else is not written over."""
    place = folder.parent / name
    before = place.read_bytes() if place.exists() else None
    result = CliRunner().invoke(app, [str(folder), "-o", str(place)])
    assert result.exit_code == 2
    assert "expected --output to end in .html" in result.stderr
    assert (place.read_bytes() if place.exists() else None) == before


def test_verb_writes_over_nothing_it_read(folder):
    """A file that the evaluation read is not written over, even where it has the name of a page."""
    labels = folder.parent / "labels.html"
    labels.write_text("kept", encoding="utf-8")
    write_evaluation(folder, fixed_landmarks=[labels])
    result = CliRunner().invoke(app, [str(folder), "-o", str(labels)])
    assert result.exit_code == 2
    assert "would be written over" in result.stderr
    assert labels.read_text(encoding="utf-8") == "kept"


def write_evaluation(folder, **inputs):
    """evaluation.json as ``semreg evaluate`` writes it where it read these files."""
    run = EvaluationRun.of(EVALUATION, verdict=VERDICT, inputs=read_files(inputs))
    run_records.write_evaluation(folder, run)


def test_before_is_where_the_evaluation_began(folder):
    """Pictures before begin at the initial transforms of the evaluation, as its tables do, applied in their order."""
    start, turn = folder.parent / "start.tfm", folder.parent / "turn.tfm"
    sitk.WriteTransform(sitk.TranslationTransform(3, SHIFT), str(start))
    several = "".join(
        f"#Transform {number}\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {factor} 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n"
        for number, factor in enumerate((5, 2))
    )
    turn.write_text(f"#Insight Transform File V1.0\n{several}", encoding="utf-8")
    write_evaluation(folder, initial=[start, turn.with_name("turn.tfm#2")])
    case = read_case(folder)
    assert case.notes == ()
    x = ORIGIN[0]  # of the first voxel
    moved = case.initial.mm()[:, 0, 0, 0].tolist()
    assert moved == pytest.approx([2 * (x + SHIFT[0]) - x, SHIFT[1], SHIFT[2]], abs=1e-3)
    sitk.WriteTransform(sitk.TranslationTransform(3, (0.0, 0.0, 1.0)), str(start))
    (note,) = read_case(folder).notes
    assert "start.tfm has changed since the evaluation" in note
    turn.unlink()
    lost = read_case(folder)
    assert lost.initial is None
    assert "turn.tfm#2, which the evaluation read, is no longer there" in lost.notes[-1]


def test_outlines_are_those_that_were_evaluated(folder):
    """The page of an evaluation with labels shows their outlines again; labels that are named hold before them."""
    case, paths = make_case(), []
    for role, volume in (("fixed", case.fixed), ("moving", case.moving)):
        paths.append(folder.parent / f"{role}_labels.nii.gz")
        write_image(Volume((volume.data > 60).float(), volume.grid), paths[-1], "uint8")
    write_evaluation(folder, labels=paths)
    found = read_case(folder)
    assert found.fixed_labels.grid.shape == case.fixed.grid.shape
    assert found.moving_labels.grid.shape == case.moving.grid.shape
    other = read_case(folder, fixed_labels=paths[1])
    assert other.fixed_labels.grid == other.moving_labels.grid


def test_the_labels_of_rigid_parts_are_found_again(folder):
    """By the record; what has changed or gone is said, and a record without names has none."""
    path = folder.parent / "bones.nii.gz"
    write_image(structure(**BOXES).numbers, path, "uint8")
    run = read_result(folder).record
    run = dataclasses.replace(run, parts=PARTS, inputs={**run.inputs, "rigid": input_of(path)})
    write_run(folder, run)
    found = read_case(folder)
    assert set(np.unique(make_stacks(found).structure)) == {0, 1}
    assert found.notes == ()
    write_image(structure(l8=BOXES["l8"]).numbers, path, "uint8")
    (said,) = read_case(folder).notes
    assert said == f"{path} has changed since the registration: the pictures show it as it is now."
    write_image(Volume(torch.zeros(1, 4, 4), Grid.of_shape((4, 4), (1.0, 1.0))), path, "uint8")
    flat = read_case(folder)
    path.write_text("none", encoding="utf-8")
    for other in (flat, read_case(folder)):
        assert other.structure is None
        assert "bones.nii.gz no longer holds the labels that the registration read" in other.notes[0]
    path.unlink()
    lost = read_case(folder)
    assert lost.structure is None
    assert "bones.nii.gz, which the registration read, is no longer there" in lost.notes[0]
    sides = {role: folder.parent / f"{role}.nii.gz" for role in ("fixed", "moving")}
    write_run(folder, hidden(run))
    private = read_case(folder, **sides)
    assert (private.structure, private.notes) == (None, ())


def test_a_result_knows_its_parts():
    """``Case.of`` outlines what was held rigid, or what slid, without being told of the labels again."""
    pair = make_bones(size=24, landmarks=5)
    config = configure("align.transform=none", "fine.enabled=false", "parts.refine=false", "parts.labels=1,3")
    for given, kept in (("rigid", {0, 1, 2}), ("sliding", {0, 1})):
        result = register(pair.fixed, pair.moving, config=config, **{given: pair.fixed_labels()})
        assert set(np.unique(make_stacks(Case.of(result, pair.fixed, pair.moving)).structure)) == kept


def test_a_case_of_a_result(tmp_path):
    """``Case.of`` takes a result and its images as they are, and says what the folder of the same run says."""
    pair = make_pair(size=24, dimension=2)
    for name in ("fixed", "moving"):
        write_image(getattr(pair, name), tmp_path / f"{name}.nii.gz")
    images = read_image(tmp_path / "fixed.nii.gz"), read_image(tmp_path / "moving.nii.gz")
    result = register(*images)
    evaluation, verdict = evaluate(result), judge(collect_evidence(*images, result.field))
    case = Case.of(result, *images, evaluation=evaluation, verdict=verdict, fixed_labels=sitk_image(pair.fixed))
    assert case.title == "moving.nii.gz onto fixed.nii.gz"
    assert case.names == {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz"}
    for volume, image in zip((case.fixed, case.moving), images, strict=True):
        assert torch.equal(volume.data, image.volume.data)
    assert case.field is result.field
    assert case.warped is result.warped
    assert case.uncertainty is result.uncertainty
    assert (case.evaluation, case.verdict) == (evaluation, verdict)
    assert (case.background, case.record) == (result.record.background, result.record)
    assert case.fixed_labels.grid.shape == pair.fixed.grid.shape
    other = Case.of(result, sitk_image(pair.fixed), pair.moving, verdict=VERDICT, title="Mine")
    assert (other.title, other.names, other.verdict.level) == ("Mine", {}, "REVIEW")
    with pytest.raises(GeometryError, match="give the fixed image that was registered"):
        Case.of(result, pair.moving, pair.moving)


def test_verb_ends_with_one_sentence(tmp_path):
    """A folder without a record ends with one line on the standard error and exit code 2."""
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: expected the output folder of semreg register")
    assert result.stderr.count("\n") == 1


NAMES = ["before_after", "checkerboard", "convergence", "grid", "jacobian", "landmarks", "uncertainty"]


def test_figures_are_sharp_enough_for_print(tmp_path):
    """All figures are written, at 300 dpi two columns wide 2100 pixels and marked as 300 dpi."""
    files = write_figures(make_case(), tmp_path / "figures", dpi=300)
    assert [file.stem for file in files] == NAMES
    picture = Image.open(tmp_path / "figures" / "before_after.png")
    assert picture.width == 2100
    assert round(picture.info["dpi"][0]) == 300
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    orange, blue = np.array([255, 128, 0]), np.array([0, 127, 255])
    assert ((np.abs(colours / np.maximum(colours.max(1), 1)[:, None] - orange / 255).max(1) < 0.1).sum()) > 500
    assert ((np.abs(colours / np.maximum(colours.max(1), 1)[:, None] - blue / 255).max(1) < 0.1).sum()) > 500


def test_figures_as_chosen(folder, run):
    """Kinds, planes, place, windows and dots per inch are as asked for; what there is not is refused."""
    out = folder.parent / "paper"
    kinds = ("overlay", "contour", "arrows", "displacement")
    code, text, _ = run("figures", folder, "-o", out, *(w for kind in kinds for w in ("--show", kind)),
                        "--plane", "axial", "--window", "0,100", "--dpi", "60")  # fmt: skip
    assert code == 0
    assert sorted(text.split()) == sorted(str(out / f"{kind}.png") for kind in kinds)
    for wrong, said in (
        (("--show", "contuor"), "did you mean contour?"), (("--plane", "axail"), "axial, coronal, sagittal"),
        (("--at", "1e4,0,0"), "inside the fixed image"), (("--at", "here"), "--at as numbers"),
        (("--window", "bones"), "LOW,HIGH or one of"), (("--dpi", "2000"), "dpi"),
    ):  # fmt: skip
        code, _, err = run("figures", folder, "-o", out / "no", *wrong)
        assert code == 2
        assert said in err
    assert not (out / "no").exists()


def test_a_figure_is_of_the_place_and_the_window():
    """The planes go through the point that is named, and grey values are those of the window."""
    case = make_case()
    stacks = make_stacks(case)
    index = (3, 7, 11)
    point = tuple(float(v) for v in (stacks.grid.index_to_point() @ [*index, 1.0])[:3])
    view = view_of(stacks, FigureOptions(planes=("sagittal",), at=point, fixed_window="0,50"))
    assert view.index == index
    assert [plane.name for plane in view.planes] == ["sagittal"]
    shown = view.cut("fixed", view.planes[0])
    values = case.fixed.reordered(canonical_order(case.fixed.grid)).data[0, :, :, 11].numpy()[::-1]
    assert np.abs(shown - np.clip(values / 50 * 255, 0, 255)).max() <= 6


def test_letters_can_be_read_on_white():
    """The letters of a figure stand on a dark ground of their own."""
    figure = Figure(figsize=(2.0, 2.0), dpi=100)
    canvas, stacks = FigureCanvasAgg(figure), make_stacks(make_case())
    view = view_of(stacks, FigureOptions(planes=("axial",)))
    plane = view.planes[0]
    white = np.full((stacks.shape[plane.rows], stacks.shape[plane.columns]), 255, dtype=np.uint8)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    show(axes, white, view, plane)
    canvas.draw()
    for letter in axes.texts:
        box = letter.get_window_extent()
        drawn = np.asarray(canvas.buffer_rgba())[::-1, :, 0][int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
        assert (drawn < 128).mean() > 0.3
        assert (drawn > 250).any()
    assert [letter.get_text() for letter in axes.texts] == list(plane.letters)


def test_figures_of_little(tmp_path):
    """Without record, evaluation and uncertainty the four figures of the field are written."""
    case = make_case()
    files = write_figures(Case(fixed=case.fixed, moving=case.moving, field=case.field), tmp_path, dpi=50)
    assert [file.stem for file in files] == ["before_after", "checkerboard", "grid", "jacobian"]


def test_figures_in_two_dimensions(tmp_path):
    """A pair in 2-D has the figures of its one plane."""
    pair = make_pair(size=40, dimension=2)
    files = write_figures(Case(fixed=pair.fixed, moving=pair.moving, field=pair.true_field()), tmp_path, dpi=50)
    assert [file.stem for file in files] == ["before_after", "checkerboard", "grid", "jacobian"]
    for file in files:
        with Image.open(file) as picture:
            assert len(set(picture.convert("L").tobytes())) > 20, f"{file.name} is empty"


@pytest.mark.parametrize("dpi", [0, 49, 5000])
def test_odd_resolutions_are_refused(tmp_path, dpi):
    """A resolution that is no use is refused before anything is written."""
    with pytest.raises(ConfigError, match=r"expected dpi in 50\.\.1200"):
        write_figures(make_case(), tmp_path / "figures", dpi=dpi)
    assert not (tmp_path / "figures").exists()


def test_figures_into_a_file_are_an_output_error(tmp_path):
    """A folder that cannot be made raises OutputError."""
    (tmp_path / "figures").write_text("I am a file", encoding="utf-8")
    with pytest.raises(OutputError):
        write_figures(make_case(), tmp_path / "figures", dpi=50)


CHECK = """
import sys
sys.path.insert(0, {tests!r})
from report_case import make_case
from semreg.report import write_report, write_figures
write_report(make_case(), {out!r} + "/report.html")
assert "matplotlib" not in sys.modules, "the page needs no matplotlib"
assert "SimpleITK" not in sys.modules, "nor SimpleITK"
write_figures(make_case(), {out!r} + "/figures", dpi=50)
assert "matplotlib.pyplot" not in sys.modules, "figures leave pyplot alone"
"""


def test_page_pays_for_no_figures(tmp_path):
    """A page is written without matplotlib and SimpleITK, and figures do not touch pyplot's global state."""
    tests = str(__import__("pathlib").Path(__file__).parents[1])
    program = CHECK.format(tests=tests, out=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
