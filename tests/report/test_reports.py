"""What a page and its pictures show, against SimpleITK, Pillow and numbers written out."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from report_case import (
    BOXES,
    EVALUATION,
    PARTS,
    RECORD,
    SHIFT,
    SLIDING,
    check_of,
    fixed_grid,
    make_case,
    moving_grid,
    phantom,
    structure_of,
)
from semreg.config import ModelConfig, RegistrationConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, canonical_order, reorder
from semreg.errors import GeometryError, OutputError
from semreg.io.bridge import sitk_image, to_labels
from semreg.io.records import plain, record_of
from semreg.quality import EvaluationRun, Verdict
from semreg.quality.deformation import moved_by
from semreg.registration.plan.reasons import Reason
from semreg.registration.result import AlignmentReport, PlanReport
from semreg.registration.sliding.report import SlidingReport
from semreg.report import pictures, write_report
from semreg.report.colours import blend, checkerboard, outlined, viridis
from semreg.report.drawings import box_panels, curves, outline
from semreg.report.encode import Sheets, sheets, sheets_within
from semreg.report.motion import motion_of
from semreg.report.page import checks_of, counted, render
from semreg.report.pictures import Layout, jacobian_colours
from semreg.report.planes import doubt_of_letters, planes_of
from semreg.report.stacks import bounded, make_stacks
from semreg.report.tables import changed_settings, exact, key_figures, number
from semreg.report.viewer import viewer_data
from semreg.report.windows import BONE, LUNG, SOFT_TISSUE, Code
from semreg.runtime.settings import override


@pytest.fixture(scope="module")
def stacks():
    return make_stacks(make_case())


@pytest.fixture(scope="module")
def page():
    return render(make_case())


def decoded(made, depth, rows, columns):
    """All slices of sheets, by Pillow."""
    found = []
    for uri in made.uris:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
        for number_ in range(made.per_sheet):
            top, left = (number_ // made.columns) * made.tile[0], (number_ % made.columns) * made.tile[1]
            if len(found) < depth:
                found.append(picture[top : top + rows, left : left + columns])
    return np.stack(found)


def oriented(volume, windowed):
    """An image as SimpleITK brings it to LPS, as bytes."""
    image = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk_image(volume), "LPS"))
    return np.rint(np.clip((image - windowed.low) / (windowed.high - windowed.low), 0, 1) * 255)


def test_fixed_stack_is_lps(stacks):
    """The fixed stack runs to the left, posterior and superior however the image is stored, as SimpleITK orients it."""
    expected = oriented(make_case().fixed, stacks.windows["fixed"])
    assert stacks.fixed.shape == expected.shape
    assert np.abs(stacks.codes["fixed"].shown(stacks.fixed) - expected).max() <= 2


@pytest.fixture(scope="module")
def turned():
    """A case whose field is a deformation of SHIFT mm and then an alignment, which turns, scales and moves."""
    case = make_case()
    c, s = 1.1 * float(np.cos(0.1)), 1.1 * float(np.sin(0.1))
    matrix = np.array([[c, -s, 0, 2.0], [s, c, 0, -1.0], [0, 0, 1.0, 3.0], [0, 0, 0, 1.0]])
    grid = case.fixed.grid
    deformed = case.field.index().reshape(3, -1).double().numpy()
    place = grid.index_to_point()
    there = np.linalg.inv(place) @ matrix @ place @ np.concatenate([deformed, np.ones((1, deformed.shape[1]))])
    vox = torch.from_numpy(there[:3]).reshape(3, *grid.shape) - Field.zeros(grid).index()
    return dataclasses.replace(case, field=Field(vox.float(), grid), linear=matrix)


def test_states_are_where_itk_puts_them(turned):
    """The moving image lies where its header says, where the alignment brings it, and where all does, as in ITK."""
    stacks = make_stacks(turned)
    reference = sitk.DICOMOrient(sitk_image(turned.fixed), "LPS")
    aligned = sitk.AffineTransform(3)
    aligned.SetMatrix(turned.linear[:3, :3].ravel().tolist())
    aligned.SetTranslation(turned.linear[:3, 3].tolist())
    deformed = sitk.CompositeTransform([aligned, sitk.TranslationTransform(3, SHIFT)])
    transforms = {"headers": sitk.Transform(3, sitk.sitkIdentity), "aligned": aligned, "deformed": deformed}
    assert [state.key for state in stacks.states] == list(transforms)
    code = stacks.codes["moving"]
    for key, transform in transforms.items():
        image = sitk.Resample(sitk_image(turned.moving), reference, transform, sitk.sitkLinear, 0.0)
        low, high = code.window.low, code.window.high
        expected = np.clip((sitk.GetArrayFromImage(image) - low) / (high - low), 0, 1) * 255
        assert np.abs(code.shown(stacks.moving[key]) - expected).max() <= 3


def test_motion_is_of_the_deformation_alone(turned):
    """Vectors, determinants and numbers leave the alignment out; the total is beside them, and led by the matrix."""
    stacks = make_stacks(turned)
    assert np.allclose(stacks.vectors, np.array(SHIFT)[::-1].reshape(3, 1, 1, 1), atol=1e-3)
    assert set(np.unique(stacks.jacobian.stack)) <= {127, 128, 129}
    motion, length = motion_of(turned)[0], float(np.linalg.norm(SHIFT))
    assert motion.alone.mean_mm == pytest.approx(length, abs=1e-3)
    assert (motion.smallest, motion.largest) == pytest.approx((1.0, 1.0), abs=1e-3)
    assert motion.total.mean_mm != pytest.approx(length, abs=0.5)
    data = viewer_data(stacks, planes_of(stacks.grid))
    assert data.octaves == pytest.approx(np.log2(1.1**2))
    index = np.array([3.0, 4.0, 5.0])
    moved = index + np.array(SHIFT)[::-1] / np.array(stacks.spacing)
    whole = turned.field.reordered(canonical_order(fixed_grid())).vox[:, 3, 4, 5].double().numpy()
    assert np.allclose((np.array(data.linear) @ [*moved, 1.0])[:3] - index, whole, atol=1e-3)


def test_alignment_alone_has_no_third_state():
    """Where nothing is deformed the alignment is the last state, and without an alignment there is none."""
    case = make_case()
    matrix = np.eye(4)
    matrix[:3, 3] = SHIFT
    assert [s.key for s in make_stacks(dataclasses.replace(case, linear=matrix)).states] == ["headers", "aligned"]
    assert [s.key for s in make_stacks(case).states] == ["headers", "deformed"]


def test_warped_image_is_used_as_it_is():
    """An image that was warped already is shown, not computed again."""
    case = make_case()
    marked = Volume(torch.full_like(case.fixed.data, 77.0), case.fixed.grid)
    shown = make_stacks(dataclasses.replace(case, warped=marked))
    assert len(np.unique(shown.moving["deformed"])) == 1
    assert not np.array_equal(shown.moving["deformed"], make_stacks(case).moving["deformed"])


def test_initial_field_makes_the_start():
    """With a start, the first state is the moving image through it."""
    case = make_case()
    shown = make_stacks(dataclasses.replace(case, initial=case.field))
    assert [state.word for state in shown.states] == ["At the start", "Deformed"]
    assert np.array_equal(shown.moving["start"], shown.moving["deformed"])


def test_vectors_are_mm_along_the_view(stacks):
    """Displacements are given in mm along superior, posterior and left, whatever the storage order."""
    assert np.allclose(stacks.vectors, np.array(SHIFT)[::-1].reshape(3, 1, 1, 1), atol=1e-4)


def test_reduced_stacks_know_the_full_size(stacks, monkeypatch):
    """A page says how many slices the image has where it shows fewer, along the axes as they are shown."""
    oriented_size = sitk.DICOMOrient(sitk_image(make_case().fixed), "LPS").GetSize()[::-1]
    assert stacks.full == stacks.shape == oriented_size
    monkeypatch.setattr("semreg.report.stacks.GREY_VOXELS", 3000)
    small = make_stacks(make_case())
    assert small.full == oriented_size
    assert np.prod(small.shape) <= 3000
    assert viewer_data(small, planes_of(small.grid)).full == oriented_size


def test_vectors_survive_the_page(stacks):
    """The two bytes of each component give the displacement back to a 30 000th of the longest."""
    made = viewer_data(stacks, planes_of(stacks.grid)).vectors
    depth, rows, columns = made.shape
    halves = decoded(made, 6 * depth, rows, columns).reshape(6, depth, rows, columns).astype(int)
    values = (halves[:3] * 256 + halves[3:] - 32768) / 32767 * made.reach
    assert np.abs(values - stacks.vectors).max() <= made.reach / 30_000


@pytest.mark.parametrize("voxels", [50, 900, 5_000, 10_000_000])
def test_bounded_grid_keeps_the_box(voxels):
    """A reduced grid covers the same box with few enough voxels, and is never finer than the image."""
    grid = fixed_grid()
    small = bounded(grid, voxels)
    assert np.allclose(small.corners_xyz(), grid.corners_xyz())
    assert small.voxels <= voxels
    assert all(m <= n for m, n in zip(small.shape, grid.shape, strict=True))
    if voxels > grid.voxels:
        assert small == grid


def test_no_folded_voxel_is_lost():
    """One folded voxel among many is on the reduced Jacobian map, at its place."""
    grid = Grid((90, 84, 78), (1.0, 1.1, 1.2), (0.0, 0.0, 0.0), fixed_grid().direction)
    determinant = torch.ones((1, *grid.shape))
    determinant[0, 41, 50, 60] = -0.2
    volume = Volume(torch.zeros((1, *grid.shape)), grid)
    case = make_case(fixed=volume, field=Field.zeros(grid), uncertainty=None, jacobian=Volume(determinant, grid))
    shown = make_stacks(case).jacobian.stack
    assert shown.size < grid.voxels
    assert (shown == 0).sum() == 1
    axes = canonical_order(grid)
    marked = Volume(determinant, grid).reordered(axes).data[0] < 0
    expected = [int((i + 0.5) * m / n) for i, m, n in zip(
        np.argwhere(marked.numpy())[0], shown.shape, marked.shape, strict=True)]  # fmt: skip
    assert np.argwhere(shown == 0)[0].tolist() == expected


def test_jacobian_levels_are_octaves():
    """A determinant of 2 is one octave above 128 on the map, of 1/2 one below, and no colour shows where it is 1."""
    case = make_case(jacobian=Volume(torch.full((1, *fixed_grid().shape), 2.0), fixed_grid()))
    assert set(np.unique(make_stacks(case).jacobian.stack)) <= {191, 192}
    _, opacity = jacobian_colours(np.array([0, 64, 128, 192, 255], np.uint8), 2.0)
    assert opacity[0] == 1.0
    assert opacity[2] == 0.0
    assert opacity[1] == pytest.approx(opacity[3], abs=0.01)
    assert opacity[4] > opacity[3]


def test_unknown_uncertainty_has_no_colour(stacks):
    """Where nothing is known the map holds 0; all else is at least 1 and grows with the uncertainty."""
    values = make_case().uncertainty.reordered(canonical_order(fixed_grid())).data[0].numpy()
    shown = stacks.uncertainty.stack
    assert shown.shape == values.shape
    assert np.array_equal(shown == 0, np.isnan(values))
    known = ~np.isnan(values)
    level = (shown[known] - 1) / 254 * stacks.uncertainty.high
    assert np.abs(level - values[known]).max() <= stacks.uncertainty.high / 100 + 1e-3


def test_labels_lie_on_their_images():
    """Outlines of labels follow their image: those of the moving one move with it, and have the same numbers."""
    case = make_case()
    fixed = Volume((case.fixed.data > 60).float() * 300, case.fixed.grid)
    moving = Volume((case.moving.data > 60).float() * 300, case.moving.grid)
    labels = make_stacks(
        dataclasses.replace(case, fixed_labels=to_labels(fixed), moving_labels=to_labels(moving))
    ).labels
    assert set(np.unique(labels["fixed"])) == {0, 1} == set(np.unique(labels["deformed"]))
    agree = [np.mean(labels["fixed"][labels["fixed"] > 0] == labels[name][labels["fixed"] > 0]) for name in
             ("headers", "deformed")]  # fmt: skip
    assert agree[1] > 0.85 > agree[0]


def test_colours_add_up_to_grey():
    """Where both images are equal the blend is grey; orange alone is the fixed image, blue alone the moving one."""
    grey = np.arange(256, dtype=np.uint8)
    both = blend(grey, grey)
    assert np.abs(both - grey[:, None].astype(int)).max() <= 1
    nothing = np.zeros_like(grey)
    assert blend(grey, nothing)[255].tolist() == [255, 128, 0]
    assert blend(nothing, grey)[255].tolist() == [0, 127, 255]


def test_checkerboard_starts_with_the_fixed_image():
    """The upper left square is the fixed image, its neighbours are the moving one."""
    board = checkerboard(np.zeros((6, 8), np.uint8), np.ones((6, 8), np.uint8), (3, 4))
    assert board.tolist() == [[0] * 4 + [1] * 4] * 3 + [[1] * 4 + [0] * 4] * 3


def test_scale_grows_in_lightness():
    """The table of the maps becomes lighter with every step, so that it reads without colour."""
    light = viridis().astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1.0).all()
    assert light[-1] - light[0] > 150


def test_lossless_sheets_give_the_slices_back():
    """Slices come back bit for bit from PNG sheets, in their order, also over several sheets."""
    stack = np.random.default_rng(0).integers(0, 256, (7, 41, 53)).astype(np.uint8)
    made = sheets(stack, Sheets, quality=None)
    assert len(made.uris) == 1
    assert np.array_equal(decoded(made, *stack.shape), stack)
    tall = np.zeros((9, 1500, 1100), np.uint8) + np.arange(9, dtype=np.uint8).reshape(9, 1, 1)
    tall[:, 70, 30:60] = 200
    made = sheets(tall, Sheets, quality=None)
    assert len(made.uris) > 1
    assert np.array_equal(decoded(made, *tall.shape), tall)


def test_slices_do_not_bleed():
    """An even slice beside noisy ones on a compressed sheet stays even up to its border."""
    stack = np.random.default_rng(3).integers(0, 256, (9, 21, 27)).astype(np.uint8)
    stack[4] = 90
    back = decoded(sheets(stack, Sheets, quality=60), *stack.shape).astype(int)
    assert np.abs(back[4] - 90).max() <= 2


def test_noise_stays_within_the_limit():
    """Stacks that compress badly get a lower quality, so that the page stays small."""
    noise = {"fixed": np.random.default_rng(2).integers(0, 256, (24, 96, 96)).astype(np.uint8)}
    free, held = sheets_within(noise, 10**9)["fixed"].size, sheets_within(noise, 120_000)["fixed"].size
    assert held <= 120_000 < free


@pytest.mark.parametrize(("lung", "expected"), [(0.3, (-1000, 400)), (0.01, (-160, 240))])
def test_ct_is_windowed_by_what_it_shows(lung, expected):
    """CT with much lung is shown from −1000 to 400 HU, other CT from −160 to 240; lung and bone can be chosen."""
    values = torch.full((1, 20, 20, 25), -1000.0)
    flat = values.reshape(-1)
    flat[: int(lung * 10_000)] = -700.0
    flat[5_000:9_000] = 60.0
    flat[9_000:] = 900.0
    code = Code.of(values)
    assert (code.window.low, code.window.high) == expected
    assert {SOFT_TISSUE, LUNG, BONE} <= set(code.windows)
    assert code.unit == "HU"


def test_bytes_hold_every_window():
    """A byte tells soft tissue to 4 HU, all other CT to 28; of other images what is shown to 1 % of the window."""
    hounsfield = torch.linspace(-1000, 1900, 5000)
    code = Code.of(hounsfield, ct=True)
    off = np.abs(code.table[code.encode(hounsfield)] - hounsfield.numpy())
    soft = (hounsfield > -150).numpy() & (hounsfield < 240).numpy()
    assert off[soft].max() <= 2
    assert off.max() <= 14
    other = torch.cat([torch.linspace(0, 100, 2000), torch.tensor([5000.0])])
    code = Code.of(other, ct=False)
    assert code.window.high == pytest.approx(99.6, abs=0.2)
    assert np.abs(code.table[code.encode(other)] - other.numpy())[20:-20].max() <= 0.5
    assert code.encode(torch.tensor([5000.0, torch.nan])).tolist() == [255, 0]


def test_window_survives_odd_images():
    """Constant images, NaN and infinity give a finite window and finite bytes."""
    for values in (torch.full((1, 4, 5, 6), 3.0), torch.full((1, 4, 5, 6), torch.nan), torch.zeros(1, 4, 5, 6)):
        code = Code.of(values, 0.0)
        for window in code.windows:
            assert np.isfinite([window.low, window.high]).all()
            assert window.high > window.low
        assert code.shown(code.encode(values)).dtype == np.uint8


def test_panes_of_a_flat_volume_lie_in_two_columns():
    """Coronal and sagittal panes share a column where both are together no higher than the axial one, in one scale."""
    flat = Layout(((200.0, 240.0), (80.0, 240.0), (80.0, 200.0)))
    assert flat.stacked
    assert flat.columns == (240.0, 240.0)
    assert flat.across == pytest.approx(2.4)
    assert [flat.share(pane) for pane in range(3)] == [1.0, 1.0, pytest.approx(200 / 240, abs=1e-4)]
    cubic = Layout(((200.0, 240.0), (150.0, 240.0), (150.0, 200.0)))
    assert not cubic.stacked
    assert cubic.columns == (240.0, 240.0, 200.0)
    assert {cubic.share(pane) for pane in range(3)} == {1.0}
    assert Layout(((200.0, 240.0),)).columns == (240.0,)


def test_lost_orientation_is_told():
    """A note says that letters may be wrong where the direction is the identity and the first voxel the origin."""
    bare, good = Grid.of_shape((4, 5, 6)), fixed_grid()

    def doubt(fixed, moving, /, **oriented):
        return doubt_of_letters({"fixed": fixed, "moving": moving}, oriented)

    assert "the fixed image has the identity" in doubt(bare, good)
    assert "the fixed image and the moving image each have" in doubt(bare, bare)
    placed = Grid((4, 5, 6), (1.0, 1.0, 1.0), (40.0, -30.0, 7.0), bare.direction)
    assert doubt(good, good) == doubt(placed, good) == ""
    assert doubt(bare, bare, fixed=True, moving=True) == ""
    assert "wrong: the fixed image has no place in the header; the moving" in doubt(bare, bare, fixed=False)
    assert doubt(Grid.of_shape((4, 5)), Grid.of_shape((4, 5))) == ""
    assert "may be wrong" in render(make_case(moving=Volume(torch.rand(1, 4, 5, 6), bare)))


def test_letters_follow_the_direction():
    """Edges carry the letters of the directions, two where the image is oblique; R is left and A is top in axial."""
    axial, coronal, sagittal = planes_of(reorder(fixed_grid(), canonical_order(fixed_grid())))
    assert axial.letters == ("R", "L", "A", "P")
    assert coronal.letters == ("R", "L", "S", "I")
    assert sagittal.letters == ("A", "P", "S", "I")
    c, s = float(np.cos(0.6)), float(np.sin(0.6))
    oblique = Grid((5, 6, 7), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)))
    assert planes_of(oblique)[0].letters == ("RA", "LP", "AL", "PR")


@pytest.mark.parametrize(("shape", "names"), [
    ((4, 5, 6), ["axial", "coronal", "sagittal"]), ((1, 5, 6), ["axial"]), ((5, 6), ["plane"]),
    ((1, 1, 6), ["axial"]),
])  # fmt: skip
def test_flat_images_have_fewer_planes(shape, names):
    """A plane that would be a line is left out; a 2-D image has one plane without letters."""
    assert [plane.name for plane in planes_of(Grid.of_shape(shape))] == names


def test_two_dimensions_make_a_page():
    """A 2-D pair gets a page of one plane with its arrows, and no letters of a patient."""
    fixed, moving = Grid.of_shape((40, 56), (0.5, 0.7)), Grid.of_shape((48, 50), (0.6, 0.65))
    case = make_case(
        fixed=Volume(torch.rand(1, 40, 56), fixed), moving=Volume(torch.rand(1, 48, 50), moving),
        field=Field.from_mm(torch.tensor([1.5, -0.5]).reshape(2, 1, 1).expand(2, 40, 56), fixed), uncertainty=None,
    )  # fmt: skip
    stacks = make_stacks(case)
    assert np.allclose(stacks.vectors[:, 0, 0, 0], [0.0, -0.5, 1.5], atol=1e-5)
    text = render(case)
    assert text.count('<figure class="pane"') == 1
    assert "Radiological" not in text


def test_text_is_escaped():
    """Names, titles and records with markup are shown as text and never run."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    record = dataclasses.replace(
        RECORD, plan=PlanReport(reasons=(Reason("frame", evil),), memory_bytes=1), command=(evil,), device=evil,
        settings=RegistrationConfig(models=(ModelConfig(model=evil),)),
    )  # fmt: skip
    verdict = Verdict.of((check_of("FAIL", title=evil, sentence=evil, unit=evil),))
    points, labels = EVALUATION.landmarks, EVALUATION.labels
    evaluation = dataclasses.replace(
        EVALUATION, notes=(evil,),
        landmarks=dataclasses.replace(points, points=(dataclasses.replace(points.points[0], name=evil),)),
        labels=dataclasses.replace(labels, each=(dataclasses.replace(labels.each[0], name=evil),)),
    )  # fmt: skip
    text = render(make_case(title=evil, names={"fixed": evil, "moving": evil}, record=record, verdict=verdict,
                            evaluation=evaluation, notes=(evil,)))  # fmt: skip
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 8


def test_page_needs_nothing_else(page):
    """Nothing on the page points elsewhere: pictures are inside, and its policy forbids the rest."""
    targets = re.findall(r"""(?:src|href)="([^"]*)""", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    assert len(targets) > 15
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "://" not in page


def test_page_reads_without_a_script(page):
    """Pictures before and after, the checkerboard and all numbers are there as plain HTML."""
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for title in ("By headers", "Deformed", "Checkerboard, deformed", "Displacement", "Jacobian", "Uncertainty"):
        assert f"<h3>{title}</h3>" in plain
    assert plain.count("<img ") == 18
    assert "<noscript>" in plain
    for word in ("REVIEW", "Half of the fixed image lies beyond the moving one.", "liver", "P13", "7.5", "1.25"):
        assert word in plain


def test_page_of_little():
    """A page needs the two images and the field alone."""
    case = make_case()
    text = render(type(case)(fixed=case.fixed, moving=case.moving, field=case.field))
    assert "NOT JUDGED" in text
    assert 'id="landmarks"' not in text
    assert 'data-mode="uncertainty"' not in text


def test_worst_gate_is_first():
    """The reasons of a verdict start with the worst; what was not measured counts for nothing."""
    verdict = Verdict.of((check_of("PASS", title="Good"), check_of("FAIL", title="Bad"), check_of(None, value=None)))
    checks = checks_of(verdict)
    assert [check.level for check in checks] == ["FAIL", "PASS", None]
    assert counted(checks) == "1 of 2 checks passed; 1 had nothing to measure."
    assert counted(checks[1:2]) == "1 of 1 checks passed."
    first, table = render(make_case(verdict=verdict)).split('id="viewer"')
    assert "<title>FAIL" in first
    assert "<strong>Bad</strong>" in first
    assert "<strong>Good</strong>" not in first
    assert table.count("NOT JUDGED</span>") == 1


def test_reasons_stay_few():
    """The first screen names six reasons and says how many more there are; the table has all, tiny values as none."""
    checks = [check_of("FAIL", title=f"G{k}", value=3.7e-6, sentence="Bad.") for k in range(8)]
    text = render(make_case(verdict=Verdict.of(tuple(checks))))
    first, table = text.split('id="viewer"')[0], text.split('id="checks"')[1]
    assert [f"G{k}</strong>" in first for k in range(8)] == [True] * 6 + [False] * 2
    assert "And 2 more" in first
    assert all(f"G{k}</th>" in table for k in range(8))
    assert "e-06" not in first
    assert table.count('<td class="number">0 %</td>') == 8


def test_worst_landmark_is_first(page):
    """What got worse is first and marked, then the largest error after; bars are shares of the largest error."""
    rows = re.findall(r'<tr><th scope="row">(\w+)</th><td class="wide-only">(.*?)</tr>', page, re.DOTALL)
    assert [name for name, _ in rows] == ["worse", *(f"P{k}" for k in range(13, 0, -1)), "found"]
    bars = [float(width) for width in re.findall(r'width="([\d.]+)"', rows[1][1])]
    assert bars == [100.0, pytest.approx(100 * 1.3 / 7.0, abs=0.1)]
    assert [name for name, row in rows if "larger than before" in row] == ["worse"]
    assert rows[1][1].startswith("1.0, 2.0, 3.0</td>")


def test_lowest_dice_is_first(page):
    """Labels are sorted by Dice after, the mean closes the table, unknown measures are dashes."""
    rows = page.split('id="labels"')[1].split("<tr")[2:5]
    assert [re.search(r'scope="row">(\w+)<', row)[1] for row in rows] == ["spleen", "liver", "Mean"]
    cells = re.findall(r'class="number[^"]*">(.*?)</td>', rows[0])
    assert cells[:2] == ["0.440 → <strong>0.520</strong>", "– → <strong>–</strong>"]


def test_key_figures_have_before_and_after():
    """The first screen shows errors before and after side by side, with their unit; features come last."""
    case = make_case()
    found = key_figures(case, motion_of(case)[0], (0.1, 0.2))
    keys = {key.name: key for key in found}
    error = keys["Landmark error, mean"]
    assert (error.before, error.after, error.unit) == ("7.5", "1.25", "mm")
    assert error.note == "15 points, 95 % below 1.85 mm, worst 1.95 mm (before 8.2), 1 got worse"
    assert (keys["Image overlap"].before, keys["Image overlap"].after) == ("90", "97")
    assert keys["Uncertainty, median"].after == "1.25"
    assert keys["Time"].after == "4"
    assert keys["Displacement, mean"].note == "95 % below 7.07, at most 7.07 mm"
    assert keys["Jacobian, range"].after == "1 to 1"
    assert [key.name for key in found][-1] == "Feature distance"
    unmeasured = key_figures(make_case(evaluation=None), motion_of(case)[0], (0.1, 0.2))
    assert next(key for key in unmeasured if key.name == "Image overlap").after == "20"


def test_remarks_of_the_evaluation_are_shown():
    """What must be known of the measures, and what was evaluated, stands on the page, with and without a record."""
    notes = ("3 of 15 fixed landmarks lie <outside>.",)
    evaluation = EvaluationRun.of(dataclasses.replace(EVALUATION, notes=notes), command=("semreg", "evaluate"))
    text = render(make_case(evaluation=evaluation, record=None))
    assert "3 of 15 fixed landmarks lie &lt;outside&gt;." in text
    assert "What was evaluated" in text
    assert 'id="how"' not in render(make_case(evaluation=EVALUATION, record=None))


def test_only_changed_settings_are_listed():
    """A setting that has its default value is not in the list; one that has another is, with both."""
    default = RegistrationConfig()
    assert changed_settings(dataclasses.replace(RECORD, settings=default)) == []
    changed = dataclasses.replace(RECORD, settings=override(default, "align.iterations=5"))
    assert changed_settings(changed) == [("align.iterations", "5", "30")]


@pytest.mark.parametrize(("value", "text"), [
    (None, "–"), (float("nan"), "–"), (0, "0"), (0.123456, "0.123"), (12345.6, "12 346"), (1e-7, "1e-07"),
    (-3.25, "-3.25"),
])  # fmt: skip
def test_numbers_are_short(value, text):
    """Numbers have three digits, large ones a gap, unknown ones a dash."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (0, "0.00"), (6.0, "6.00"), (0.069, "0.07")]
)
def test_numbers_of_a_column_have_the_same_decimals(value, text):
    """Numbers that stand below each other can be compared at a glance."""
    assert exact(value, 2) == text


def test_curves_have_a_point_an_iteration():
    """Each level with numbers has a curve from its first to its last value; levels without are left out."""
    found = curves(RECORD)
    assert [len(curve.dots) for curve in found] == [3, 2]
    assert found[0].dots[0][1] == 0.0
    assert found[0].dots[-1][1] == 110.0
    assert curves(None) == curves(dataclasses.replace(RECORD, convergence=())) == []


def test_boxes_are_drawn_in_one_scale():
    """The outline of a box is as long and as wide as the box, in the same scale in all three projections."""
    case = make_case()
    corners = np.concatenate([case.fixed.grid.corners_xyz(), case.moving.grid.corners_xyz()])
    scale = 148 / (corners.max(0) - corners.min(0)).max()
    extent = case.fixed.grid.corners_xyz().max(0) - case.fixed.grid.corners_xyz().min(0)
    for panel, axes in zip(box_panels(case), ((0, 1), (0, 2), (1, 2)), strict=True):
        name, points = panel.outlines[0]
        assert name == "fixed"
        drawn = np.array([[float(v) for v in point.split(",")] for point in points.split()])
        assert np.allclose(np.ptp(drawn, axis=0), extent[list(axes)] * scale, atol=0.2)


def test_aligned_box_is_drawn_where_it_came():
    """With an alignment the moving box is drawn a third time, brought back by the inverse of the recorded matrix."""
    matrix = np.eye(4)
    matrix[:3, 3] = (0.0, 30.0, 0.0)
    alignment = AlignmentReport(
        transform="rigid", matrix=tuple(map(tuple, matrix.tolist())), match=0.5, match_before=0.1, overlap=0.9,
        decisions=(), evidence=(), doubts=(), doubtful=False, levels=(),
    )  # fmt: skip
    case = make_case(record=dataclasses.replace(RECORD, alignment=alignment))
    panel = box_panels(case)[0]
    boxes = {name: np.array([p.split(",") for p in points.split()], float).mean(0) for name, points in panel.outlines}
    assert set(boxes) == {"fixed", "moving", "aligned"}
    assert boxes["aligned"][1] < boxes["moving"][1]


def test_outline_is_convex():
    """The outline of points holds the corners alone, each once."""
    square = np.array([[0, 0], [2, 0], [2, 1], [0, 1], [1, 0.5], [1, 0]], float)
    assert sorted(map(tuple, outline(square))) == [(0, 0), (0, 1), (2, 0), (2, 1)]


def test_case_refuses_what_does_not_fit():
    """Images of two dimensions, or a field on another grid, are refused with what to do."""
    case = make_case()
    with pytest.raises(GeometryError, match="one dimension"):
        dataclasses.replace(case, moving=Volume(torch.zeros(1, 4, 5), Grid.of_shape((4, 5))))
    with pytest.raises(GeometryError, match="give the fixed image that was registered"):
        dataclasses.replace(case, field=Field.zeros(moving_grid()))
    with pytest.raises(GeometryError, match="uncertainty"):
        dataclasses.replace(case, uncertainty=phantom(moving_grid()))


def test_unwritable_place_is_an_output_error(tmp_path):
    """A page that cannot be written raises OutputError and leaves nothing."""
    with pytest.raises(OutputError, match="writable"):
        write_report(make_case(), tmp_path / "missing" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_page_of_odd_values():
    """NaN and constant images, fields that fold and uncertainty nowhere known still give a page."""
    grid = fixed_grid()
    fixed = torch.full((1, *grid.shape), 5.0)
    fixed[0, :4] = torch.nan
    field = torch.randn((3, *grid.shape), generator=torch.Generator().manual_seed(0)) * 3
    nowhere = Volume(torch.full((1, *grid.shape), torch.nan), grid)
    text = render(make_case(fixed=Volume(fixed, grid), field=Field(field, grid), uncertainty=nowhere))
    assert "NaN" not in re.sub(r'"data:[^"]*"', "", text)


# Rigid parts, and what slides


def with_structure(**found):
    """The pair with rigid parts or with what slides, in boxes."""
    return make_case(record=dataclasses.replace(RECORD, **found), structure=structure_of(**BOXES))


def rows_below(page, section):
    """The cells of the rows of a section's table, as text."""
    table = page.split(f'id="{section}"')[1].split("</table>")[0].split("<tbody>")[1]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in rows]


def test_rigid_parts_are_told_one_by_one():
    """A row each: turn, way, where to, from rigid before, by its images, held, left; and what is not as usual."""
    page = render(with_structure(parts=PARTS))
    assert rows_below(page, "parts") == [
        ["tibia &lt;1&gt;", "7.12", "5.00", "3.00, -4.00, 0.00", "0.25", "0.75", "–", "100", "&lt; 0.001"],
        ["8", "7.12", "5.00", "3.00, -4.00, 0.00", "0.25", "0.75", "–", "50", "&lt; 0.001"],
    ]
    for line in (*PARTS.sentences, "held rigid"):
        assert line.replace("<", "&lt;").replace(">", "&gt;") in page.split('id="parts"')[1].split("</section>")[0]
    assert "turned by up to 7.12°, moved by up to 5 mm" in page
    assert 'id="structure"' in page
    assert 'id="sliding"' not in page


def test_what_slides_is_told_with_its_place():
    """Slide and gap in mm, where it slides most, what has no partner, and what is not as usual."""
    case = with_structure(sliding=SLIDING)
    page = render(case)
    assert rows_below(page, "sliding") == [
        ["Slide, mm", "10.50", "13.25", "14.75"],
        ["Gap or overlap, mm", "0.12", "3.50", "4.50"],
    ]
    section = page.split('id="sliding"')[1].split("</section>")[0]
    stacks = make_stacks(case)
    index = [float(v) for v in re.search('data-index="(.*?)"', section)[1].split()]
    assert np.allclose(index, (np.array(stacks.shape) - 1) / 2)
    assert "3 % of the wall" in section
    assert "In 0.2 % of the voxels" in section
    assert SLIDING.sentences[0] in section
    assert 'id="parts"' not in page
    assert "held rigid" not in page


def test_a_record_without_the_longest_slide_has_a_page():
    """As one has that was written before it was told: all the rest is there."""
    kept = plain(SLIDING)
    del kept["most_at"]
    page = render(with_structure(sliding=record_of(SlidingReport, kept, Path("record.json"))))
    assert rows_below(page, "sliding")[0] == ["Slide, mm", "10.50", "13.25", "14.75"]
    assert ("The longest slide" in page, "3 % of the wall" in page) == (False, True)


def test_a_page_without_structure_says_nothing_of_it(page):
    """No button, no section, no outline; a record alone has its section, and labels alone have nothing."""
    for word in ('id="structure"', 'id="parts"', 'id="sliding"', "White outline: "):
        assert word not in page
    told = render(make_case(record=dataclasses.replace(RECORD, sliding=SLIDING)))
    assert ('id="sliding"' in told, 'id="structure"' in told) == (True, False)
    assert make_stacks(make_case(structure=structure_of(**BOXES))).structure is None


@pytest.mark.parametrize(("found", "kept"), [({"parts": PARTS}, {3: 1, 8: 2}), ({"sliding": SLIDING}, {5: 1})])
def test_outlined_is_what_the_record_names(found, kept):
    """The labels that moved rigidly or slid, and no other, lie where the image is; in the viewer's data, too."""
    case = with_structure(**found)
    stacks = make_stacks(case)
    expected = np.zeros(stacks.shape, dtype=int)
    image = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk_image(case.structure.numbers), "LPS"))
    for label, small in kept.items():
        expected[np.rint(image) == case.structure.labels.index(label)] = small
    assert np.array_equal(stacks.structure, expected)
    made = viewer_data(stacks, planes_of(stacks.grid)).labels["structure"]
    assert np.array_equal(decoded(made, *stacks.shape), expected)


def test_outlines_are_white_within_and_black_beside():
    """On grey and on colours; where two labels touch both sides are white."""
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[2:4, 2:4], labels[2:4, 4:6] = 1, 2
    for picture in (np.full((6, 8), 90, np.uint8), np.full((6, 8, 3), 90, np.uint8)):
        found = outlined(picture, labels)
        seen = found if found.ndim == 2 else found[..., 1]
        assert (seen[2:4, 2:6] == 255).all()
        assert (seen[1, 2:6] == 0).all()
        assert (seen[2:4, 6] == 0).all()
        assert (seen[0], seen[:, 0]) == (pytest.approx(90), pytest.approx(90))
        assert (picture == 90).all()


def test_still_pictures_have_the_outlines(monkeypatch):
    """Each of them shows the same border where the middle slice of the labels has one."""
    calls = []
    monkeypatch.setattr(pictures, "outlined", lambda picture, labels: calls.append(labels) or picture)
    stacks = make_stacks(with_structure(parts=PARTS))
    planes = planes_of(stacks.grid)
    rows = pictures.rows_of(stacks, planes)
    assert len(calls) == len(rows) * len(planes)
    for plane, labels in zip(planes, calls, strict=False):
        whole = plane.cut(stacks.structure, pictures.middle(stacks, plane))
        at = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(whole.shape, labels.shape, strict=True)]
        assert np.array_equal(labels[at[0]][:, at[1]], whole)


def test_a_jump_along_a_wall_is_no_fold():
    """Of both sides the determinants are each side's own to the wall; without labels there are folds."""
    grid = fixed_grid()
    inside = structure_of(l5=(slice(8, 16), slice(None), slice(None)))
    points = torch.from_numpy(np.indices(grid.shape).astype(np.float32))
    own = torch.where(inside.numbers.data[0] > 0, 1.0, 0.0)
    vox = torch.stack([-3.0 * own + 0.1 * points[0], 0.2 * points[1] * own, 0 * own])
    record = dataclasses.replace(RECORD, sliding=SLIDING)
    expected = np.where(own.numpy() > 0, 1.1 * 1.2, 1.1)
    turn = np.eye(4)
    turn[:3, :3] *= 1.25
    for linear in (None, turn):
        total = Field(vox, grid) if linear is None else moved_by(Field(vox, grid), linear)
        given = {"field": total, "linear": linear, "record": record}
        motion, values = motion_of(make_case(structure=inside, **given))
        assert np.abs(values.data[0].numpy() - expected)[2:-2, 2:-2, 2:-2].max() < 1e-3
        assert motion.folded_share == 0
        assert motion_of(make_case(**given))[0].folded_share > 0.05
