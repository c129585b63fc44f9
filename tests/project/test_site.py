"""The documentation builds without a warning or a network, leads somewhere, and knows all commands and names."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

import semreg
from pages import blocks
from semreg import config
from semreg.cli import app
from semreg.phantom import write_pair
from site_build import ROOT, built, taken
from textured_pair import textured_pair

for needed in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(needed, reason="what builds the documentation is not installed: pip install '.[docs]'")

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
ELSEWHERE = re.compile(r"^(https?:)?//", re.IGNORECASE)
FALLBACKS = {"https://unpkg.com/resize-observer-polyfill", "https://unpkg.com/mermaid@11/dist/mermaid.min.js"}
"""What the theme would fetch for browsers older than 2020, and for a page with a diagram in mermaid's language."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    return built(tmp_path_factory)


@pytest.fixture(scope="module")
def pages(site):
    """All pages, taken apart; that for missing ones is for servers, whose root it names."""
    return {path: taken(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_document_is_a_page(site):
    """Strict building without a warning makes a page of every file of docs, and of those outside that are linked."""
    for page in PAGES:
        assert (site / Path(page).relative_to("docs")).with_suffix(".html").is_file(), page
    assert (site / "project" / "CONTRIBUTING.html").is_file()
    assert (site / "reference" / "command_line.html").is_file()


def test_links_lead_somewhere(pages):
    """Every link from page to page ends at a file and, where it names one, at an anchor that is there."""
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            if ELSEWHERE.match(link) or link.startswith(("mailto:", "data:", "javascript:")):
                continue
            target, _, anchor = unquote(link).partition("#")
            end = (path.parent / target).resolve() if target else path
            known = not anchor or end.suffix != ".html" or (end.is_file() and anchor in taken(end).anchors)
            if not end.is_file() or not known:
                broken.append(f"{path.name}: {link}")
    assert len(pages) > 50
    assert broken == []


def test_nothing_comes_from_another_host(site, pages):
    """No page and no style loads anything from elsewhere; scripts name only what these pages never need."""
    assert [(p.name, x) for p, page in pages.items() for x in page.loaded if ELSEWHERE.match(x)] == []
    assert not any("mermaid" in page.classes for page in pages.values())
    for path in [*site.rglob("*.css"), *site.rglob("*.html")]:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]*", text) == [], path
    named = {
        found for path in site.rglob("*.js") for found in re.findall(r'"(https?://[^"]+)"', path.read_text("utf-8"))
    }
    loaded = {x for x in named if re.search(r"unpkg|cdn|jsdelivr|googleapis|\.js$", x)}
    assert loaded <= FALLBACKS


def test_text_is_rendered(pages):
    """No list, table or fence is left as text: Markdown for code hosts needs a blank line here and there."""
    raw = [
        (path.name, line)
        for path, page in pages.items()
        for text in page.paragraphs
        for line in text.splitlines()
        if re.match(r"\s*([-*|] |\d\. |```|\|-)", line)
    ]
    assert raw == []


def test_the_reference_has_every_public_name(site):
    """Every name of ``semreg``, every class of settings, and all that goes into ``itk`` has its entry."""
    found = {anchor for path in (site / "reference").glob("*.html") for anchor in taken(path).anchors}
    rooms = {name for name in semreg.__all__ if inspect.ismodule(getattr(semreg, name))}
    assert {f"semreg.{name}" for name in {*semreg.__all__} - rooms - {"__version__"}} - found == set()
    settings = [
        name for name, value in inspect.getmembers(config, inspect.isclass) if value.__module__ == config.__name__
    ]
    assert {name for name in settings if not found & {f"semreg.config.{name}", f"semreg.{name}"}} == set()
    text = (ROOT / "src/semreg/itk/api/__init__.py").read_text(encoding="utf-8")
    names = re.findall(r'"(\w+)"', re.search(r"__all__ = \[(.*?)\]", text, re.DOTALL)[1])
    ends = {anchor.rpartition(".")[2] for anchor in found if anchor.startswith("semreg.itk.api.")}
    assert {*names, "PythonMetricv4"} - ends == {"ModelConfiguration"}  # another name of ImpactModelConfiguration


def verbs(group, *names):
    """All commands below a group with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, *names, name)
        elif not command.hidden:
            yield (*names, name), command


def test_the_reference_has_every_verb_and_flag(site):
    """Each verb has a section with all of its flags and what they are for."""
    html = (site / "reference" / "command_line.html").read_text(encoding="utf-8")
    sections = dict(zip(*[iter(re.split(r'<h2 id="([\w-]+)">', html)[1:])] * 2, strict=True))
    known = list(verbs(typer.main.get_command(app)))
    assert len(known) > 15
    for words, command in known:
        assert "-".join(words) in sections
        text = sections["-".join(words)]
        rows = re.findall(r"<tr>.*?</tr>", text, re.DOTALL)
        for parameter in command.params:
            flags = [flag for flag in [*parameter.opts, *parameter.secondary_opts] if flag.startswith("-")]
            missing = [x for x in flags if x != "--help" and not any(re.search(rf"{x}\b", row) for row in rows)]
            assert missing == [], words
            said = " ".join((getattr(parameter, "help", None) or "").split()[:2])
            assert any(said.replace("&", "&amp;").replace("<", "&lt;") in row for row in rows) or not said, words


def commands_of(page):
    """All ``semreg …`` lines of a page's shell blocks and indented blocks, as far as they are whole."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line.strip() for block in blocks("sh", text) for line in block.replace("\\\n", " ").splitlines()]
    lines += [line.strip() for line in re.findall(r"^ {4}(semreg .*)$", text, flags=re.MULTILINE)]
    return [line for line in lines if line.startswith("semreg ") and "…" not in line]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_commands_parse(page):
    """Every command in the documentation is one that the command line understands."""
    for line in commands_of(page):
        words = shlex.split(re.split(r" [>&|]", re.sub(r"\[.*?\]", "", line))[0], comments=True)[1:]
        command, name = typer.main.get_command(app), "semreg"
        if words == ["--help"]:
            continue
        with contextlib.ExitStack() as stack:
            context = None
            while hasattr(command, "commands"):
                context = stack.enter_context(command.make_context(name, list(words), parent=context))
                name, command, words = command.resolve_command(context, list(words))
            stack.enter_context(command.make_context(name, list(words), parent=context))


def test_the_first_five_minutes(tmp_path, monkeypatch, capsys):
    """The start page as it stands: its commands run on a phantom pair in ``demo``, then its Python."""
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write_pair(textured_pair(), tmp_path / "demo")
    shutil.copy("demo/moving.nii.gz", "labels.nii.gz")
    given = commands_of("docs/index.md")
    ran = [line for line in given if not line.startswith(("semreg demo", "semreg doctor"))]
    assert [shlex.split(line)[1] for line in ran] == ["register", "apply", "evaluate"]
    for line in ran:
        with pytest.raises(SystemExit) as left:
            app(args=shlex.split(line)[1:], obj=shlex.split(line))
        assert left.value.code in (0, None), line
    written = re.findall(r"^\| `(\S+?)`(?:, `(\S+?)`)? \|", page, flags=re.MULTILINE)
    assert {name for names in written for name in names if name} <= {path.name for path in Path("out").iterdir()}
    for name in ("fixed.nii.gz", "moving.nii.gz"):
        shutil.copy(f"demo/{name}", name)
    (block,) = blocks("python", page)
    capsys.readouterr()
    exec(compile(block, "docs/index.md", "exec"), {})  # noqa: S102 - the page is ours
    assert "0% of the voxels are folded" in capsys.readouterr().out


def test_the_settings_page_runs(capsys):
    """The Python of the page of settings prints the value that it sets."""
    (block,) = blocks("python", (DOCS / "reference" / "settings.md").read_text(encoding="utf-8"))
    exec(compile(block, "docs/reference/settings.md", "exec"), {})  # noqa: S102 - the page is ours
    assert capsys.readouterr().out == "0.5\n"


def test_all_results_are_on_the_page_of_benchmarks():
    """Whoever keeps another page of results links it."""
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    kept = {path.name for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert kept - set(re.findall(r"results/([\w-]+\.md)\)", page)) == set()


def test_files_from_outside_become_pages():
    """A link is led to the page of its file, from any folder; code that looks like a link is left alone."""
    spec = importlib.util.spec_from_file_location("outside", DOCS / "_site" / "outside.py")
    outside = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(outside)
    text = '[a](../examples/own_network.py#x) <img src="p.png">\n```\n[b](../b.md)\n```\n[c](https://c.org)'
    led = outside.replaced(text, lambda target: f"<{target}>")
    assert led == '[a](<../examples/own_network.py>#x) <img src="<p.png>">\n```\n[b](../b.md)\n```\n[c](https://c.org)'
    for path in ("docs/a/b.md", "README.md", "examples/own_network.py", "docs/pictures/hero.png", "LICENSE"):
        assert outside.repository_path(outside.site_path(path), ROOT) == path
