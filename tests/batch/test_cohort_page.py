"""Promises of the table and the page of a cohort: the numbers, the order, and that nobody's text becomes code."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from report_case import check_of, errors_of
from run_records import make_run, write_evaluation, write_run
from semreg.batch import cohort_rows, write_csv, write_page
from semreg.batch.measures import robust_z
from semreg.batch.plots import number, plots, scale
from semreg.quality import EvaluationRun, Verdict
from semreg.quality.deformation import JacobianStatistics
from semreg.quality.landmarks import LandmarkErrors
from semreg.quality.run import InputFile
from semreg.registration.uncertainty import UncertaintySummary

EVIL = '<script>alert("x")</script>'
DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")


def write_cohort(folder, levels):
    """A cohort of results on disk: verdict by name; ``failed`` and ``waiting`` for those without a result."""
    states = []
    for index, (name, level) in enumerate(levels.items()):
        place = folder / name
        place.mkdir(parents=True)
        state = level if level in {"failed", "waiting", "stopped"} else "finished"
        states.append({"name": name, "state": state, "error": f"register: {EVIL}" if state == "failed" else None})
        (place / "log.txt").write_text("said", encoding="utf-8")
        done = {"format": 1, "error": None, "notes": {"what": EVIL, "formula": "=1+1"}}
        step = {"fingerprint": "", "seconds": 10.0 + index, "outputs": {}}
        (place / "done.json").write_text(json.dumps({**done, "steps": {"register": step}}), encoding="utf-8")
        if state != "finished":
            continue
        verdict = Verdict.of((check_of(level, sentence=f"{EVIL} is {level}."),))
        errors = LandmarkErrors(
            count=4, worse=0, before=errors_of(8.0 - 0.1 * index), after=errors_of(1.0 + 0.1 * index), points=()
        )
        jacobian = JacobianStatistics(region="image", voxels=9, folded_share=0.002, minimum=0.4 + 0.01 * index)
        write_evaluation(place, EvaluationRun(landmarks=errors, jacobian=jacobian, verdict=verdict))
        unsure = UncertaintySummary(mean_mm=0.5, median_mm=0.375, p95_mm=1.5, maximum_mm=2.0, parts={})
        image = InputFile(path="image.nii", sha256="")
        write_run(place, make_run({"fixed": image, "moving": image}, uncertainty=unsure))
        (place / "report.html").write_text("report", encoding="utf-8")
    (folder / "batch.json").write_text(json.dumps({"format": 1, "pairs": states}), encoding="utf-8")
    return list(levels)


LEVELS = {
    "good": "PASS", "broken": "failed", "a <b> & 'c'": "FAIL", "odd": "PASS", "later": "waiting", "fine": "PASS",
    "doubtful": "REVIEW", "aborted": "stopped", "well": "PASS", "solid": "PASS",
}  # fmt: skip


@pytest.fixture
def cohort(tmp_path):
    """Ten pairs of all kinds; one that passed stands out."""
    folder = tmp_path / "out"
    names = write_cohort(folder, LEVELS)
    path = folder / "odd" / "evaluation.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["landmarks"]["after"]["mean"] = 9.0
    path.write_text(json.dumps(found), encoding="utf-8")
    return folder, cohort_rows(folder, names)


def test_those_to_look_at_come_first(cohort):
    """Without a result, FAIL, REVIEW, then the one that stands out, with the reason; what was not run is last."""
    rows = cohort[1]
    assert [row.name for row in rows][:4] == ["broken", "a <b> & 'c'", "doubtful", "odd"]
    assert [row.name for row in rows[-2:]] == ["aborted", "later"]
    assert rows[3].reason.startswith("TRE of 9 mm stands out from the other pairs (robust z ")
    assert rows[2].reason == f"{EVIL} is REVIEW."
    assert (rows[0].values["tre_mm"], rows[0].report) == (None, None)


@pytest.mark.parametrize(("value", "first"), [(-0.9, True), (2.0, False)])
def test_only_the_worse_side_stands_out(tmp_path, value, first):
    """Of the smallest Jacobian, where more is better, a low one stands out and a high one does not."""
    names = write_cohort(tmp_path, dict.fromkeys("abcdef", "PASS"))
    path = tmp_path / "f" / "evaluation.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["jacobian"]["minimum"] = value
    path.write_text(json.dumps(found), encoding="utf-8")
    row = next(row for row in cohort_rows(tmp_path, names) if row.name == "f")
    assert ("Smallest Jacobian of -0.9 stands out" in row.reason) == first
    assert (row.z >= 3.5) == first


def test_numbers_come_from_the_files(cohort):
    """Shares become percent, uncertainty comes from the record, and time is the sum of the steps."""
    row = next(row for row in cohort[1] if row.name == "doubtful")
    assert row.values["folded_percent"] == pytest.approx(0.2)
    assert (row.values["tre_before_mm"], row.values["uncertainty_p95_mm"]) == (pytest.approx(7.4), 1.5)
    assert (row.values["uncertainty_mm"], row.seconds) == (0.375, 16.0)
    assert row.values["dice"] is None


def test_a_result_that_cannot_be_read_has_no_numbers(tmp_path):
    """A pair with a file that this version did not write stays in the table, without numbers."""
    names = write_cohort(tmp_path, dict.fromkeys("ab", "PASS"))
    (tmp_path / "a" / "evaluation.json").write_text('{"landmarks": {"count": "many"}}', encoding="utf-8")
    rows = {row.name: row for row in cohort_rows(tmp_path, names)}
    assert (rows["a"].state, rows["a"].values["tre_mm"]) == ("finished", None)
    assert rows["b"].values["tre_mm"] == pytest.approx(1.1)


def test_the_csv_is_safe_to_open(cohort):
    """One row a pair, unknown is empty, and a text that a spreadsheet would run has an apostrophe in front."""
    folder, rows = cohort
    write_csv(folder / "cohort.csv", rows)
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [row.name for row in rows]
    assert {row["formula"] for row in table} == {"'=1+1"}
    assert table[0]["tre_mm"] == table[3]["dice"] == ""
    assert float(table[3]["tre_mm"]) == 9.0


def test_nothing_on_the_page_is_somebodys_code(cohort):
    """Names, notes, errors and reasons are text; the page loads nothing from elsewhere; links are relative."""
    folder, rows = cohort
    write_page(folder / "index.html", rows, source=EVIL)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert") >= len(LEVELS)
    assert "a <b>" not in text
    links = re.findall(r'href="([^"]+)"', text)
    assert "a%20%3Cb%3E%20%26%20%27c%27/report.html" in links
    assert not [link for link in links if "://" in link or link.startswith("/")]
    assert not re.findall(r'(?:src|href)="https?:', text)


def test_the_page_stands_for_any_cohort(tmp_path):
    """No pair done, one pair, nothing known: the page is written and says how many there are."""
    (tmp_path / "batch.json").write_text("{broken", encoding="utf-8")
    for names, said in ((["a", "b"], "0 of 2 pairs"), (["a"], "0 of 1 pair ")):
        rows = cohort_rows(tmp_path, names)
        write_page(tmp_path / "index.html", rows)
        assert said in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert rows[0].state == "waiting"


@given(st.lists(st.floats(-100, 100), min_size=5, max_size=30))
def test_robust_z_is_the_one_of_scipy(values):
    """Distance from the median over the median absolute deviation scaled to a normal's standard deviation."""
    spread = stats.median_abs_deviation(values, scale="normal")
    if spread < 1e-6:
        return
    expected = (np.array(values) - np.median(values)) / spread
    assert robust_z(values) == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-9)


def test_one_of_many_equal_values_stands_out():
    """Where most values are equal the median deviation is 0; the other one is still seen, equal ones are not."""
    assert robust_z([0.0] * 9 + [5.0])[-1] > 3.5
    assert robust_z([2.0] * 5) == [0.0] * 5


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_an_axis_shows_all_values(values):
    """Ticks ascend, are between 2 and 12, and no value lies outside of them."""
    low, high, ticks = scale(values)
    slack = 1e-6 * max(1.0, *map(abs, values))  # far below the width of a line
    assert low <= min(values) + slack
    assert high >= max(values) - slack
    assert 2 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.123456, "0.123"), (12.345, "12.3"), (300.0, "300"), (12345.6, "12346"), (0.00012, "0.00012")],
)
def test_numbers_are_short(value, text):
    """Three digits, no needless zeros after the point, and none lost before it."""
    assert number(value) == text


def test_dots_stand_at_their_values(cohort):
    """The place of a dot is linear in its value, and a line is marked where it became worse."""
    done = [row for row in cohort[1] if row.done]
    plot = next(plot for plot in plots(done) if plot.title.startswith("Landmark"))
    places = {dot.row.name: dot.x for dot in plot.strips[1].dots}
    ticks = {float(text): x for x, text in plot.ticks}
    low, high = min(ticks), max(ticks)
    expected = ticks[low] + (9.0 - low) / (high - low) * (ticks[high] - ticks[low])
    assert places["odd"] == pytest.approx(expected)
    assert sum(link[-1] for link in plot.links) == 1
    assert plot.count == len(done) == 7


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if DRIVER is None or BROWSER is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield made
    made.quit()


def names_shown(browser):
    rows = browser.find_elements("css selector", "#pairs tbody tr")
    return [row.get_attribute("data-level") for row in rows if row.is_displayed()]


def test_the_table_sorts_and_filters(browser, cohort):
    """A click on a title sorts, again the other way round, unknown last; filters hide; the console stays empty."""
    folder, rows = cohort
    write_page(folder / "index.html", rows, source="pairs.csv")
    browser.set_window_size(1440, 1000)
    browser.get((folder / "index.html").as_uri())
    assert names_shown(browser)[:3] == ["ERROR", "FAIL", "REVIEW"]
    heads = browser.find_elements("css selector", "#pairs th button")
    after = next(head for head in heads if head.text.startswith("TRE after"))
    column = heads.index(after) + 1

    def values():
        cells = browser.find_elements("css selector", f"#pairs tbody tr > :nth-child({column})")
        return [cell.get_attribute("data-value") for cell in cells]

    for descending in (False, True):
        after.click()
        known = [float(value) for value in values() if value]
        assert known == sorted(known, reverse=descending)
        assert values()[-3:] == ["", "", ""]
    browser.find_element("id", "filter").send_keys("doubt")
    assert names_shown(browser) == ["REVIEW"]
    assert browser.find_element("id", "count").text == "1 of 10 pairs"
    assert [line for line in browser.get_log("browser") if line["level"] in {"SEVERE", "WARNING"}] == []


def test_no_result_is_told_apart_from_a_bad_one(browser, cohort):
    """A pair that could not be finished has another word and another colour than one with the verdict FAIL."""
    folder, rows = cohort
    write_page(folder / "index.html", rows, source="pairs.csv")
    browser.get((folder / "index.html").as_uri())
    looks = {}
    for level in ("ERROR", "FAIL", "WAIT"):
        badge = browser.find_element("css selector", f'#pairs tr[data-level="{level}"] .badge')
        looks[level] = badge.value_of_css_property("color"), badge.value_of_css_property("border-top-style")
        assert ("no result" in badge.text) == (level == "ERROR")
    assert looks["ERROR"][0] != looks["FAIL"][0]
    assert len(set(looks.values())) == 3


def test_on_paper_names_are_whole(browser, cohort):
    """In print no word of a name is broken, and what only a click can use is not there."""
    folder, rows = cohort
    write_page(folder / "index.html", rows, source="pairs.csv")
    browser.set_window_size(720, 1000)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.get((folder / "index.html").as_uri())
    signs = "return getComputedStyle(document.querySelector('#pairs th button'), '::after').content"
    lines = (
        "return Array.from(document.querySelectorAll('.who, #pairs .name > a'))"
        ".filter(each => !each.textContent.trim().includes(' ')).map(each => {"
        "const part = document.createRange(); part.selectNodeContents(each);"
        "return new Set(Array.from(part.getClientRects()).map(line => Math.round(line.top / 5))).size})"
    )
    found = browser.execute_script(signs), browser.execute_script(lines)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert found[0] == "none"
    assert max(found[1]) == 1


def test_a_narrow_page_does_not_scroll_sideways(browser, cohort):
    """At 400 pixels only the table scrolls."""
    folder, rows = cohort
    write_page(folder / "index.html", rows, source="pairs.csv")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.get((folder / "index.html").as_uri())
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 400
