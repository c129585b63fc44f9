"""The documentation in a browser, opened from a disk: no error, no request, no sideways scroll, a search that finds."""

from __future__ import annotations

import json
import shutil

import pytest

from conftest import eventually
from site_build import built

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is not installed")
for needed in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(needed, reason="what builds the documentation is not installed: pip install '.[docs]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

WIDTHS = (1440, 400)
PICTURES = """
return [document.documentElement.scrollWidth, Array.from(document.querySelectorAll('article img')).map(function (i) {
    return [i.src, i.naturalWidth, i.width, i.getBoundingClientRect().right];
})]"""
"""The width of the page, and of each picture its file, its pixels, its width on the page and where it ends."""
COMMANDS = """
return Array.from(document.querySelectorAll('.language-sh pre > code, .language-text pre > code')).map(function (c) {
    return [c.innerText.slice(0, 80), c.scrollWidth - c.clientWidth];
})"""
"""The commands of a page and what programs say, and how many pixels of each are hidden to the right."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    return built(tmp_path_factory)


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests, without a network, whose log of the console and of the network is kept."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1440,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    yield driver
    driver.quit()


def resize(driver, width):
    """Give the page a width."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def show(driver, path, width):
    """Open a page again at a width; what it wrote to the console and what it asked for."""
    resize(driver, width)
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(path.as_uri())
    wait(driver, "return document.readyState === 'complete'")
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return driver.get_log("browser"), asked


def wait(driver, script):
    """Wait until a script returns something true; what it returned."""
    return eventually(lambda: driver.execute_script(script))


def test_all_pages(browser, site):
    """No page writes an error, asks for anything but files of the site, or is wider than the window.

    Every picture is loaded, fits its column, and has a pixel for each that is shown; every command is wrapped.
    """
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    wrong, commands = [], 0
    for path in pages:
        log, asked = show(browser, path, WIDTHS[0])
        wrong += [(path.name, entry["message"]) for entry in log]
        wrong += [(path.name, url) for url in asked if not url.startswith((site.as_uri(), "data:"))]
        assert asked
        browser.execute_script("document.querySelectorAll('img').forEach(function (i) { i.loading = 'eager'; })")
        for width in WIDTHS:
            resize(browser, width)
            wide, pictures = browser.execute_script(PICTURES)
            wrong += [(path.name, wide)] if wide > width else []
            for source, natural, shown, right in pictures:
                sharp = source.endswith(".svg") or shown <= natural
                wrong += [] if natural > 0 and right <= width and sharp else [(path.name, source, natural, shown)]
            found = browser.execute_script(COMMANDS)
            commands += len(found)
            wrong += [(path.name, width, said) for said, hidden in found if hidden > 1]
    assert len(pages) > 50
    assert commands > 100
    assert wrong == []


WORDS = {
    "index": "notebook",
    "gallery": "gallery",
    "installation": "install gpu cuda hospital offline docker telemetry",
    "tutorials/ct_mr": "ct mr",
    "tutorials/brain": "brain",
    "tutorials/two_d": "histology",
    "choose": "lung liver",
    "limits": "ultrasound pet",
    "configuration": "settings preset presets",
    "alignment": "rigid affine",
    "images": "dicom nifti mask nibabel freesurfer",
    "features": "network",
    "transforms": "transform inverse points resample simpleitk ants elastix fsl",
    "slicer": "slicer",
    "outputs": "jacobian displacement private log exit progress",
    "batch": "batch bids slurm cluster",
    "itk": "itk metric",
    "memory_speed": "memory threads speed",
    "report": "report checkerboard",
    "verdict": "verdict",
    "uncertainty": "uncertainty",
    "measures": "landmarks labels dice folding",
    "reference/index": "python",
    "reference/registration": "monai torchio",
}
"""The page that users should see first for each of the words that they type."""
TYPED = """
document.querySelector('.md-search-result__list').innerHTML = '';
var field = document.querySelector('input[data-md-component=search-query]');
field.focus(); field.value = arguments[0]; field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));"""
FOUND = """
var found = Array.from(document.querySelectorAll('.md-search-result__link')).map(function (a) { return a.href; });
return found.length ? found : null;"""


def test_search_finds(browser, site):
    """From a disk, without a network and without a worker, the search leads each word to its page first."""
    pages = {word: page for page, words in WORDS.items() for word in words.split()}
    assert len(pages) > 50
    show(browser, site / "conventions.html", 1440)
    first = {}
    for word in pages:
        browser.execute_script(TYPED, word)
        (link, *_) = wait(browser, FOUND)
        first[word] = link.partition(f"{site.as_uri()}/")[2].partition(".html")[0]
    assert first == pages


def test_search_leaves_files_of_machines_out(site):
    """Code, figures of benchmarks and files of settings are pages to link to, not to find."""
    found = {entry["location"].split("#")[0] for entry in json.loads(
        (site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]}  # fmt: skip
    outside = {name for name in found if name.startswith("project/")}
    assert outside == {"project/CHANGELOG.html", "project/CONTRIBUTING.html"}


def test_dark_and_light(browser, site):
    """The button in the head changes the colours from light to dark or back."""
    show(browser, site / "concepts" / "transforms.html", 1440)
    grounds = []
    for _ in range(2):
        script = "return getComputedStyle(document.body, null).backgroundColor"
        grounds.append(browser.execute_script(script))
        browser.find_element("css selector", "label[for^=__palette]:not([hidden])").click()
    assert grounds[0] != grounds[1]
