"""The page in a real browser: headless Chromium, driven by selenium. Pixels are read back and compared with numpy."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from conftest import eventually
from report_case import (
    BOXES,
    RECORD,
    SHIFT,
    SLIDING,
    check_of,
    fixed_grid,
    grid_centre,
    make_case,
    phantom,
    structure_of,
)
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.io.bridge import LabelMap
from semreg.quality import Verdict
from semreg.report import write_report
from semreg.report.colours import blend
from semreg.report.planes import planes_of
from semreg.report.stacks import make_stacks
from semreg.transforms.maps import mapped

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

PLACE = tuple(mapped(fixed_grid().index_to_point(), np.array([[16.0, 15.0, 6.0]]))[0].tolist())
"""In mm, off the middle, within what slides."""
EVIL = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"


def folded_case():
    """The pair with one folded voxel, labels and a title that would run if it were not escaped."""
    grid = fixed_grid()
    determinant = torch.ones((1, *grid.shape))
    determinant[0, 13:, :, :] = 2.0
    determinant[0, 13, 11, 15] = -1.0
    case = make_case()
    labels = [LabelMap(Volume((v.data > 60).float(), v.grid), (0, 1)) for v in (case.fixed, case.moving)]
    return make_case(jacobian=Volume(determinant, grid), fixed_labels=labels[0], moving_labels=labels[1], title=EVIL)


@pytest.fixture(scope="module")
def stacks():
    return make_stacks(folded_case())


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page as a file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(folded_case(), path)
    return path


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests; its log of the console and of the network is kept."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1440,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    """The page as it is after it was opened again at 1440 pixels, without the crosshair over the pixels."""
    resize(browser, 1440)
    browser.get(page.as_uri())
    wait(browser, "return document.getElementById('viewer').dataset.ready === 'true'")
    keys(browser, browser.find_element("tag name", "body"), "x")
    return browser


def resize(driver, width, height=1000):
    """Another size of the page's view."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait(driver, script):
    """Wait until a script returns something true."""
    eventually(lambda: driver.execute_script(script))


def drawn(driver):
    """Mode, state and slices of what is drawn once all is drawn."""
    driver.execute_async_script(
        "var done = arguments[0];"
        "requestAnimationFrame(function () { requestAnimationFrame(function () { done(); }); });"
    )
    mode, when, *cursor = driver.execute_script("return document.getElementById('viewer').dataset.drawn").split()
    return mode, when, [int(v) for v in cursor]


def choose(driver, mode=None, when=None):
    """Press the buttons of a mode and of a state."""
    for name, value in (("mode", mode), ("state", when)):
        if value is not None:
            driver.find_element("css selector", f"[data-{name}={value}]").click()
    return drawn(driver)


def pixels(driver, number, shape):
    """The picture of a plane read at the centres of ``shape`` pixels, (rows, columns, 3)."""
    script = """
    var canvas = document.querySelectorAll('.pane canvas')[arguments[0]], rows = arguments[1], columns = arguments[2];
    var data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, found = [];
    var box = canvas.dataset.picture.split(' ').map(Number);
    for (var r = 0; r < rows; r++) { for (var c = 0; c < columns; c++) {
      var y = box[1] + Math.floor((r + 0.5) * box[3] / rows), x = box[0] + Math.floor((c + 0.5) * box[2] / columns);
      var k = 4 * (y * canvas.width + x); found.push(data[k], data[k + 1], data[k + 2]);
    } }
    return found;"""
    return np.array(driver.execute_script(script, number, *map(int, shape))).reshape(*shape, 3)


def inner(difference):
    """Leave the border out, with the length at the lower left, and the middle, where the swipe line may be."""
    kept = difference[2:-2, 2:-2].astype(float)
    kept[-8:, : kept.shape[1] // 3] = 0
    return np.delete(kept, np.s_[kept.shape[1] // 2 - 1 : kept.shape[1] // 2 + 2], axis=1)


def keys(driver, element, *strokes):
    """Type into an element."""
    from selenium.webdriver.common.keys import Keys

    element.send_keys(*[getattr(Keys, stroke, stroke) for stroke in strokes])
    return drawn(driver)


def stages(driver):
    """The viewers of the planes."""
    return driver.find_elements("css selector", ".stage")


def test_no_console_error_and_no_request(opened, page):
    """Opening the page and all modes logs nothing, asks for nothing but the file itself, and runs no text."""
    opened.get_log("performance")
    opened.get_log("browser")
    opened.get(page.as_uri())
    wait(opened, "return document.getElementById('viewer').dataset.ready === 'true'")
    for button in opened.find_elements("css selector", "[data-mode]"):
        button.click()
        drawn(opened)
    assert opened.get_log("browser") == []
    asked = [
        entry["message"] for entry in opened.get_log("performance") if "Network.requestWillBeSent" in entry["message"]
    ]
    other = [
        text for text in asked if page.as_uri() not in text.partition('"url":')[2][:300] and '"url":"data:' not in text
    ]
    assert asked
    assert other == []
    assert opened.title != "ran"
    assert "<script>" in opened.find_element("tag name", "h1").text


@pytest.mark.parametrize("number", [0, 1, 2])
def test_slices_are_oriented(opened, stacks, number):
    """Each plane shows the slice numpy cuts from the stack: right on the left, anterior and superior where they say."""
    plane = planes_of(stacks.grid)[number]
    for mode, name in (("fixed", "fixed"), ("moving", "deformed")):
        _, _, cursor = choose(opened, mode)
        expected = stacks.cut(name, plane, cursor[plane.across])
        shown = pixels(opened, number, expected.shape)
        difference = inner(shown.mean(2) - expected)
        assert np.abs(difference).mean() < 3
        assert np.abs(difference).max() < 30
        mirrored = inner(shown.mean(2) - expected[:, ::-1]), inner(shown.mean(2) - expected[::-1])
        assert min(np.abs(m).mean() for m in mirrored) > 2 * np.abs(difference).mean() + 2


def test_marked_corner_is_where_the_letters_say(opened):
    """The brightest blob lies to the right, anterior and superior of the patient: it appears at those letters."""
    stage = stages(opened)
    for number, letters in enumerate((("left", "R", "top", "A"), ("left", "R", "top", "S"), ("left", "A", "top", "S"))):
        range_ = opened.find_element("id", f"slice-{number}")
        best = (19, 6, 5)[number]  # where the blob is, counted from 1
        opened.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            range_, best,
        )  # fmt: skip
        choose(opened, "fixed")
        shown = pixels(opened, number, (40, 40)).mean(2)[3:-3, 3:-3]
        row, column = np.unravel_index(shown.argmax(), shown.shape)
        assert shown.max() > 150
        assert row < 17
        assert column < 17
        for side, letter in zip(letters[::2], letters[1::2], strict=True):
            assert stage[number].find_element("css selector", f".letter.{side}").text == letter


def test_modes_change_the_pixels(opened, stacks):
    """Overlay, checkerboard, swipe and the states show what numpy makes of the same slices."""
    plane = planes_of(stacks.grid)[0]
    _, _, cursor = choose(opened, "blend", "deformed")
    fixed, before, after = (stacks.cut(name, plane, cursor[0]) for name in ("fixed", "headers", "deformed"))
    assert np.abs(before.astype(int) - after).mean() > 2
    shape = fixed.shape
    assert np.abs(inner(pixels(opened, 0, shape) - blend(fixed, after))).mean() < 3
    choose(opened, when="headers")
    assert np.abs(inner(pixels(opened, 0, shape) - blend(fixed, before))).mean() < 3
    choose(opened, "moving")
    assert np.abs(inner(pixels(opened, 0, shape).mean(2) - before)).mean() < 3
    choose(opened, "swipe")
    half = shape[1] // 2
    swiped = np.concatenate([fixed[:, :half], before[:, half:]], axis=1)
    assert np.abs(inner(pixels(opened, 0, shape).mean(2) - swiped)).mean() < 3
    choose(opened, "checker")
    shown = pixels(opened, 0, (400, 400)).mean(2)
    alone = {}
    for mode in ("fixed", "moving"):
        choose(opened, mode)
        alone[mode] = pixels(opened, 0, (400, 400)).mean(2)
    height, width = shape[0] * stacks.spacing[1], shape[1] * stacks.spacing[2]
    edge = max(height, width) / 8
    rows = ((np.arange(400) + 0.5) / 400 * height // edge).astype(int)
    columns = ((np.arange(400) + 0.5) / 400 * width // edge).astype(int)
    expected = np.where((rows[:, None] + columns) % 2 == 0, alone["fixed"], alone["moving"])
    assert np.abs(shown - expected).mean() < 0.5


def test_maps_have_their_colours(opened, stacks):
    """A folded voxel is magenta, what is larger in the moving image orange; edges are orange; unknown has no colour."""
    where = np.argwhere(stacks.jacobian.stack == 0)[0]
    choose(opened, "jacobian")
    for number, at in enumerate(where):
        opened.execute_script(
            "var r = document.getElementById('slice-' + arguments[0]); r.value = arguments[1] + 1;"
            "r.dispatchEvent(new Event('input', {bubbles: true}))", number, int(at)
        )  # fmt: skip
    drawn(opened)
    shown = pixels(opened, 0, stacks.fixed.shape[1:])
    red, green, blue = shown[where[1], where[2]]
    assert red > 200
    assert blue > 150
    assert green < 80
    plain = stacks.jacobian.stack[where[0]] > 180
    assert (shown[plain][:, 0] > shown[plain][:, 2] + 40).mean() > 0.9
    choose(opened, "edges")
    edges = pixels(opened, 0, (300, 300))
    assert ((edges[..., 0] > 200) & (edges[..., 2] < 90) & (edges[..., 1] > 90)).sum() > 100
    choose(opened, "uncertainty")
    mapped = pixels(opened, 0, stacks.fixed.shape[1:])
    unknown = stacks.uncertainty.stack[where[0]] == 0
    assert unknown.any()
    coloured = np.ptp(mapped, axis=2)
    assert np.median(coloured[~unknown]) > 30
    assert np.median(coloured[unknown]) < 12


def test_arrows_grid_and_labels_are_drawn(opened):
    """Arrows, the deformed grid and outlines of labels each add their lines to the slice."""
    choose(opened, "fixed")
    plain = pixels(opened, 0, (300, 300))
    for mode in ("arrows", "grid", "labels"):
        choose(opened, mode)
        changed = np.abs(pixels(opened, 0, (300, 300)) - plain).max(2) > 60
        assert changed.sum() > 200, mode
    assert opened.find_element("id", "opacity").is_displayed()


def test_outlines_of_what_slides_and_its_longest_slide(browser, tmp_path):
    """An outline in each mode, and N takes it away; a button leads to where the slide is longest."""
    case = make_case(
        record=dataclasses.replace(RECORD, sliding=dataclasses.replace(SLIDING, most_at=PLACE)),
        structure=structure_of(**BOXES),
    )
    page = tmp_path / "report.html"
    write_report(case, page)
    resize(browser, 1440)
    browser.get(page.as_uri())
    wait(browser, "return document.getElementById('viewer').dataset.ready === 'true'")
    browser.find_element("css selector", "#sliding [data-index]").click()
    expected = [round(v) for v in make_stacks(case).index_of(PLACE)]
    assert drawn(browser)[2] == expected
    body = browser.find_element("tag name", "body")
    for mode in ("fixed", "moving", "displacement"):
        choose(browser, mode)
        seen = pixels(browser, 0, (300, 300))
        assert "outline, in the fixed image: wall" in browser.find_element("id", "explain").text
        keys(browser, body, "n")
        assert (np.abs(pixels(browser, 0, (300, 300)) - seen).max(2) > 60).sum() > 200, mode
        assert "wall" not in browser.find_element("id", "explain").text
        assert browser.find_element("id", "structure").get_attribute("aria-pressed") == "false"
        keys(browser, body, "n")
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_wheel_browses_slices(opened):
    """The wheel over a picture changes the slice of its plane and nothing else, and the page does not scroll."""
    stage = stages(opened)[1]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
    _, _, before = drawn(opened)
    top = opened.execute_script("return scrollY")
    webdriver.ActionChains(opened).scroll_from_origin(
        webdriver.common.action_chains.ScrollOrigin.from_element(stage), 0, 120
    ).perform()
    _, _, after = drawn(opened)
    assert after[1] > before[1]
    assert [after[0], after[2]] == [before[0], before[2]]
    assert opened.execute_script("return scrollY") == top
    assert opened.find_element("id", "slice-1").get_attribute("value") == str(after[1] + 1)


def test_keys_browse_slices(opened, stacks):
    """Arrows, PageUp, PageDown, Home and End move through the plane that has the focus; 1, 2 and 3 give the focus."""
    depth = stacks.shape[0]
    _, _, start = drawn(opened)
    body = opened.find_element("tag name", "body")
    keys(opened, body, "1")
    stage = opened.switch_to.active_element
    assert stage == stages(opened)[0]
    assert keys(opened, stage, "ARROW_RIGHT")[2][0] == start[0] + 1
    assert keys(opened, stage, "ARROW_UP", "ARROW_UP")[2][0] == start[0] - 1
    assert keys(opened, stage, "HOME")[2][0] == 0
    assert keys(opened, stage, "PAGE_DOWN")[2][0] == 10
    assert keys(opened, stage, "END")[2][0] == depth - 1
    assert keys(opened, stage, "PAGE_UP")[2][0] == depth - 11
    keys(opened, stage, "3")
    assert opened.switch_to.active_element == stages(opened)[2]


def test_keys_choose_modes(opened):
    """Letters choose the modes, B and a held Space the state, ? shows the keys and Escape hides them."""
    stage = stages(opened)[0]
    letters = {"o": "blend", "c": "checker", "e": "edges", "f": "fixed", "m": "moving", "a": "arrows", "g": "grid",
               "d": "displacement", "j": "jacobian", "u": "uncertainty", "l": "labels", "s": "swipe"}  # fmt: skip
    for letter, mode in letters.items():
        assert keys(opened, stage, letter)[0] == mode
        checked = opened.find_elements("css selector", "#modes [aria-checked=true]")
        assert [button.get_attribute("data-mode") for button in checked] == [mode]
    assert keys(opened, stage, "b")[1] == "headers"
    assert keys(opened, stage, "b")[1] == "deformed"
    hold = webdriver.ActionChains(opened).click(stage).key_down(" ")
    hold.perform()
    assert drawn(opened)[1] == "headers"
    webdriver.ActionChains(opened).key_up(" ").perform()
    assert drawn(opened)[1] == "deformed"
    keys(opened, stage, "?")
    assert opened.find_element("id", "help").is_displayed()
    keys(opened, opened.switch_to.active_element, "ESCAPE")
    assert not opened.find_element("id", "help").is_displayed()


def test_before_changes_only_where_it_is_seen(opened):
    """B does nothing in modes without the moving image; pressed while Space is held it holds after that, too."""
    stage = stages(opened)[0]
    assert keys(opened, stage, "j", "b", "s")[1] == "deformed"
    webdriver.ActionChains(opened).click(stage).key_down(" ").perform()
    assert drawn(opened)[1] == "headers"
    stage.send_keys("b")
    webdriver.ActionChains(opened).key_up(" ").perform()
    assert drawn(opened)[1] == "deformed"
    chosen = opened.find_element("css selector", "#states [aria-checked=true]")
    assert chosen.get_attribute("data-state") == "deformed"


def test_reduced_slices_say_where_they_are(browser, tmp_path, monkeypatch):
    """Slices that are not those of the image are named by their position in mm, of the place where the planes meet."""
    monkeypatch.setattr("semreg.report.stacks.GREY_VOXELS", 3000)
    case = folded_case()
    small = make_stacks(case)
    write_report(case, tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    wait(browser, "return document.getElementById('viewer').dataset.ready === 'true'")
    _, _, cursor = drawn(browser)
    x, y, z = (small.grid.index_to_point() @ [*cursor, 1.0])[:3]
    shown = [each.text.replace("\u2212", "-").split() for each in browser.find_elements("css selector", ".pane output")]
    assert [(name, unit) for name, _, unit in shown] == [("z", "mm"), ("y", "mm"), ("x", "mm")]
    assert [float(value) for _, value, _ in shown] == pytest.approx([z, y, x], abs=0.051)


def test_unreduced_slices_are_counted(opened, stacks):
    """Slices that are those of the image are counted from 1."""
    _, _, cursor = drawn(opened)
    shown = [each.text for each in opened.find_elements("css selector", ".pane output")]
    assert shown == [f"{at + 1} of {n}" for at, n in zip(cursor, stacks.shape, strict=True)]


def test_pictures_begin_on_the_first_screen(browser, tmp_path):
    """At 1440 × 900 the pictures begin within the first screen, even below a verdict with many reasons."""
    sentence = "One more search would move the image by another 20 mm (median): it is not in place."
    check = check_of("FAIL", title="Remaining displacement", value=19.8, unit="mm", sentence=sentence)
    write_report(make_case(verdict=Verdict.of((check,) * 8)), tmp_path / "report.html")
    resize(browser, 1440, 900)
    browser.get((tmp_path / "report.html").as_uri())
    wait(browser, "return document.getElementById('viewer').dataset.ready === 'true'")
    assert stages(browser)[0].rect["y"] < 900


def test_click_links_the_planes(opened, stacks):
    """A click on a picture moves the other planes to that place."""
    choose(opened, "fixed")
    canvas = opened.find_elements("css selector", ".pane canvas")[0]
    width = canvas.size["width"]
    webdriver.ActionChains(opened).move_to_element_with_offset(canvas, -width // 4, 0).click().perform()
    _, _, cursor = drawn(opened)
    assert cursor[2] == pytest.approx(stacks.shape[2] / 4 - 0.5, abs=1)
    assert "mm" in opened.find_element("id", "readout").text


def press(driver, element, dx, dy, *, button="left", held=None):
    """Drag from the middle of an element by so many pixels."""
    from selenium.webdriver.common.actions.mouse_button import MouseButton

    chain = webdriver.ActionChains(driver, duration=20)
    if held:
        chain.key_down(held)
    chain.move_to_element(element)
    chain.w3c_actions.pointer_action.pointer_down({"left": MouseButton.LEFT, "right": MouseButton.RIGHT}[button])
    chain.move_by_offset(dx, dy)
    chain.w3c_actions.pointer_action.pointer_up({"left": MouseButton.LEFT, "right": MouseButton.RIGHT}[button])
    if held:
        chain.key_up(held)
    chain.perform()
    return drawn(driver)


def window_shown(driver):
    """The grey values that are black and white: of the fixed and of the moving image."""
    text = driver.find_element("id", "window").text.replace("\u2212", "-")
    return [[float(part) for part in each.split() if part[0] in "-0123456789."] for each in text.split(",")]


def test_window_is_dragged_chosen_and_typed(opened, stacks):
    """A drag with the right button, a preset, sliders and keys change the window, as numpy does it; R resets it."""
    plane, code = planes_of(stacks.grid)[0], stacks.codes["fixed"]
    _, _, cursor = choose(opened, "fixed")
    stage = stages(opened)[0]
    first = window_shown(opened)
    assert first[0] == pytest.approx([code.window.low, code.window.high], rel=0.02, abs=0.1)
    press(opened, stage, 100, 0, button="right")
    wide = window_shown(opened)
    assert all(np.ptp(w) > 1.2 * np.ptp(f) for w, f in zip(wide, first, strict=True))
    press(opened, stage, 0, 80, button="right")
    assert all(sum(m) > sum(w) for m, w in zip(window_shown(opened), wide, strict=True))
    keys(opened, stage, "r")
    assert window_shown(opened) == first
    assert np.ptp(window_shown(opened)[0]) > (keys(opened, stage, "<"), np.ptp(window_shown(opened)[0]))[1]
    keys(opened, stage, "r")
    opened.execute_script(
        "var s = document.getElementById('window-fixed'); s.value = 2; s.dispatchEvent(new Event('change'))"
    )
    drawn(opened)
    expected = stacks.cut("fixed", plane, cursor[0], code.windows[2])
    assert np.abs(inner(pixels(opened, 0, expected.shape).mean(2) - expected)).mean() < 4


def test_planes_of_a_flat_volume_share_a_column(browser, tmp_path):
    """Beside a tall axial plane the others lie below each other, in its scale; on a narrow screen all are in a row."""
    grid = Grid((60, 60, 8), (2.0, 2.0, 3.0), tuple(grid_centre() - [59.0, 59.0, 10.5]), np.eye(3))
    field = Field.from_mm(torch.tensor(SHIFT).reshape(3, 1, 1, 1).expand(3, *grid.shape), grid)
    case = make_case(fixed=phantom(grid), field=field, uncertainty=None)
    write_report(case, tmp_path / "flat.html")
    boxes = {}
    for width in (1440, 400):
        resize(browser, width)
        browser.get((tmp_path / "flat.html").as_uri())
        wait(browser, "return document.getElementById('viewer').dataset.ready === 'true'")
        boxes[width] = browser.execute_script(
            "return Array.from(document.querySelectorAll('.pane')).map(function (p) {"
            "var b = p.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"
        )
        scales = [
            float(drawn_px) / float(length)
            for length, _, drawn_px in (
                pane.get_attribute("data-ruler").split() for pane in browser.find_elements("css selector", ".pane")
            )
        ]
        assert max(scales) < 1.03 * min(scales) or width == 400
    axial, coronal, sagittal = boxes[1440]
    assert coronal[0] == sagittal[0] > axial[2]
    assert sagittal[1] >= coronal[3]
    assert len({round(box[0]) for box in boxes[400]}) == 1
    assert [box[1] for box in boxes[400]] == sorted(box[1] for box in boxes[400])


def test_zoom_and_pan(opened, stacks):
    """Keys, buttons and Ctrl with the wheel zoom all planes; Shift with arrows or a drag moves; the ruler follows."""
    stage, canvas = stages(opened)[0], opened.find_elements("css selector", ".pane canvas")[0]

    def box():
        drawn(opened)
        return np.array([int(v) for v in canvas.get_attribute("data-picture").split()])

    def ruler():
        length, _, drawn_px = opened.find_element("css selector", ".pane").get_attribute("data-ruler").split()
        return float(drawn_px) / float(length)

    whole, scale = box(), ruler()
    assert scale == pytest.approx(whole[2] / (stacks.shape[2] * stacks.spacing[2]), rel=0.02)
    keys(opened, stage, "+", "+")
    assert box()[2] == pytest.approx(2.25 * whole[2], abs=2)
    assert ruler() == pytest.approx(2.25 * scale, rel=0.02)
    assert opened.find_element("id", "zoom").text == "225 %"
    before = box()
    keys(opened, stage, "SHIFT", "ARROW_LEFT")
    assert box()[0] > before[0]
    before = box()
    press(opened, stage, -60, 0, held="\ue008")
    assert box()[0] == pytest.approx(before[0] - 60, abs=2)
    keys(opened, stage, "0")
    assert (box() == whole).all()
    opened.execute_script(
        "var s = arguments[0], r = s.getBoundingClientRect(); s.dispatchEvent(new WheelEvent('wheel', "
        "{deltaY: -120, ctrlKey: true, clientX: r.left + 5, clientY: r.top + 5, cancelable: true}))", stage
    )  # fmt: skip
    assert box()[2] == pytest.approx(1.2 * whole[2], abs=2)
    assert box()[0] == pytest.approx(whole[0], abs=3)


def test_one_plane_and_full_screen(opened):
    """P shows the chosen plane alone and larger, 3 another one; V fills the window, and Escape leaves it."""
    stage = stages(opened)[1]
    keys(opened, stage, "p")
    assert [each.is_displayed() for each in stages(opened)] == [False, True, False]
    keys(opened, stages(opened)[1], "3")
    assert [each.is_displayed() for each in stages(opened)] == [False, False, True]
    keys(opened, stages(opened)[2], "p", "v")
    assert opened.execute_script("return document.getElementById('viewer').getBoundingClientRect().top") == 0
    keys(opened, stages(opened)[2], "v")
    assert opened.execute_script("return document.getElementById('viewer').className").split()[-1] != "full"


def test_crosshair_says_place_and_values(opened, stacks):
    """The crosshair joins the planes: its place in mm, both values and the displacement stand below the pictures."""
    _, _, cursor = keys(opened, opened.find_element("tag name", "body"), "x")
    x, y, z = stacks.grid.index_to_point()[:3] @ [*cursor, 1.0]
    text = opened.find_element("id", "readout").text.replace("\u2212", "-")
    assert f"{x:.1f}, {y:.1f}, {z:.1f} mm" in text
    assert "deformed by 7.1 mm" in text
    fixed = stacks.codes["fixed"].table[stacks.fixed[tuple(cursor)]]
    assert float(text.partition("fixed ")[2].split()[0]) == pytest.approx(fixed, rel=0.1, abs=3)
    plain = pixels(opened, 0, (400, 400)).astype(int)
    assert ((plain[..., 2] - plain[..., 0])[100:150, 195:220] > 40).any()


def test_aligned_state_and_total_motion(browser, tmp_path):
    """With an alignment there are three states, in every comparison, and maps are of the deformation or of all."""
    case = make_case()
    matrix = np.eye(4)
    matrix[:3, 3] = (60.0, 0.0, 0.0)
    field = Field.from_mm(torch.tensor([64.0, -3.0, 5.0]).reshape(3, 1, 1, 1).expand(3, *case.fixed.grid.shape),
                          case.fixed.grid)  # fmt: skip
    write_report(make_case(field=field, linear=matrix), tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    wait(browser, "return document.getElementById('viewer').dataset.ready === 'true'")
    for mode in ("swipe", "blend", "checker", "edges", "moving"):
        for when in ("headers", "aligned", "deformed"):
            assert choose(browser, mode, when)[:2] == (mode, when)
    assert "inside the moving one" in browser.find_element("id", "explain").text
    choose(browser, "displacement")
    assert browser.find_element("id", "scale-high").text == "\u2265 7.07 mm"
    keys(browser, browser.find_element("tag name", "body"), "t")
    assert browser.find_element("id", "scale-high").text == "\u2265 64.3 mm"
    assert "With the alignment" in browser.find_element("id", "explain").text


def test_swipe_line_follows_the_pointer(opened, stacks):
    """Dragging in the swipe mode moves the line: what is left of it is the fixed image."""
    plane = planes_of(stacks.grid)[0]
    _, _, cursor = choose(opened, "swipe", "headers")
    canvas = opened.find_elements("css selector", ".pane canvas")[0]
    move = webdriver.ActionChains(opened).move_to_element(canvas).click_and_hold()
    move.move_by_offset(canvas.size["width"] // 4, 0).release().perform()
    assert drawn(opened)[2] == cursor
    fixed, before = (stacks.cut(name, plane, cursor[0]) for name in ("fixed", "headers"))
    line = round(fixed.shape[1] * 0.75)
    shown = pixels(opened, 0, fixed.shape).mean(2)
    assert np.abs(shown - fixed)[2:-8, 2 : line - 2].mean() < 3
    assert np.abs(shown - before)[2:-2, line + 2 : -2].mean() < 3


def test_a_millimetre_is_as_long_in_both_directions(opened, stacks):
    """Pictures are as wide and as high as the body in mm, though voxels have three different edges."""
    extent = [n * s for n, s in zip(stacks.shape, stacks.spacing, strict=True)]
    for plane, canvas in zip(planes_of(stacks.grid), opened.find_elements("css selector", ".pane canvas"), strict=True):
        _, _, width, height = map(int, canvas.get_attribute("data-picture").split())
        assert width / height == pytest.approx(extent[plane.columns] / extent[plane.rows], rel=0.01)
    assert len(set(stacks.spacing)) == 3


@pytest.mark.parametrize("width", [400, 1440])
def test_fits_the_width(opened, width):
    """At 400 and at 1440 pixels nothing is wider than the page, and planes are below or beside each other."""
    resize(opened, width)
    drawn(opened)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    tops = {round(stage.rect["y"]) for stage in stages(opened)}
    assert len(tops) == (3 if width == 400 else 1)
    small = opened.execute_script(
        "return Array.from(document.querySelectorAll('button')).filter(function (b) {"
        "var r = b.getBoundingClientRect(); return r.width && Math.min(r.width, r.height) < 24; }).length"
    )
    assert small == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(opened, theme):
    """Every text has a contrast of at least 4.5 to what is behind it, in light and in dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    drawn(opened)
    wait(opened, "return document.getAnimations().length === 0")  # buttons fade
    assert opened.execute_script(CONTRAST) == []
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


CONTRAST = """
function numbers(text) { return (text.match(/[\\d.]+/g) || []).map(Number); }
function light(colour) {
  return colour.slice(0, 3).reduce(function (sum, v, k) {
    v /= 255;
    return sum + (v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4)) * [0.2126, 0.7152, 0.0722][k];
  }, 0);
}
function behind(e) {
  for (; e; e = e.parentElement) {
    var ground = numbers(getComputedStyle(e).backgroundColor);
    if (ground.length === 3 || ground[3] === 1) { return ground; }
  }
  return [255, 255, 255];
}
return Array.from(document.querySelectorAll('main *, header *, footer *')).filter(function (e) {
  var own = Array.from(e.childNodes).some(function (n) { return n.nodeType === 3 && n.textContent.trim(); });
  if (!own || !e.getClientRects().length || e.closest('.stage, svg') || e.disabled) { return false; }
  var a = light(numbers(getComputedStyle(e).color)), b = light(behind(e));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
}).map(function (e) { return e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 30); });
"""


def test_theme_button(opened):
    """The button goes from the system's colours to light, to dark and back, and the page is dark when it says so."""
    button = opened.find_element("id", "theme")
    seen = []
    for _ in range(3):
        button.click()
        ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        seen.append((opened.execute_script("return document.documentElement.dataset.theme"), ground))
    assert [theme for theme, _ in seen] == ["light", "dark", "auto"]
    assert seen[1][1] == "rgb(18, 22, 28)"
    assert seen[0][1] != seen[1][1]


def test_focus_and_names(opened):
    """Each control has a name, and Tab reaches them in the order in which they are seen."""
    nameless = opened.execute_script(
        "return Array.from(document.querySelectorAll('button, input, [tabindex=\"0\"]')).filter(function (e) {"
        "return !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length)); }).length"
    )
    assert nameless == 0
    order = opened.execute_script(
        "return Array.from(document.querySelectorAll('[tabindex]')).every(function (e) { return e.tabIndex <= 0; })"
    )
    assert order is True


def test_reads_without_a_script(browser, page):
    """With scripts off the middle slices and the tables are there, the controls are not, and a hint says so."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        images = [i for i in browser.find_elements("css selector", "#stills img") if i.is_displayed()]
        assert len(images) == 18
        assert min(image.size["width"] for image in images) > 100
        assert not browser.find_element("id", "viewer").is_displayed()
        assert browser.find_element("id", "landmarks").is_displayed()
        assert "can be read without a script" in browser.find_element("tag name", "main").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_prints_pictures_without_controls(opened):
    """On paper the still pictures stand for the viewer, and no button is left."""
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not opened.find_element("id", "viewer").is_displayed()
        assert len([i for i in opened.find_elements("css selector", "#stills img") if i.is_displayed()]) == 18
        assert not any(b.is_displayed() for b in opened.find_elements("tag name", "button"))
        resize(opened, A4_PIXELS)
        assert opened.execute_script(CUT_OFF) == []
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


A4_PIXELS = 703
"""Width of the paper less its margins, at 96 dots per inch."""
CUT_OFF = """
return Array.from(document.querySelectorAll('td, th')).filter(function (e) {
  return e.getClientRects().length && e.getBoundingClientRect().right > innerWidth;
}).map(function (e) { return e.textContent; });
"""
