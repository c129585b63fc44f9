"""Hook of mkdocs: files outside docs that a page links to become pages, and links lead there.

``docs/x.md`` may link to ``../README.md`` or ``../examples/a.py``, as it must on a code host. Such a file becomes the
page ``project/README.md`` or ``project/examples/a.py.md``: Markdown and pictures as they are, all else as a block of
code. What these pages link to is taken in as well.
"""  # noqa: INP001 - loaded by its path

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

FOLDER = "project"
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "sh", ".cpp": "cpp", ".h": "cpp", ".json": "json"}
PICTURES = {".svg", ".png", ".jpg"}
FENCE = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"""(\]\(|(?:src|href)=")([^)\s"#:]+)(?=[#)"\s])""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what pages of docs and of the navigation link to, and what that links to."""
    root = Path(config.config_file_path).parent
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(navigated(config.nav, root))
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (root / path).is_file():
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(taken_in(path, root, config))
        if path.endswith(".md"):
            text = (root / path).read_text(encoding="utf-8")
            waiting += [target for target in targets(text, path) if not target.startswith("docs/")]
    return files


FOUND = {"project/CHANGELOG.md", "project/CONTRIBUTING.md"}
"""Pages of files outside docs that the search finds; code, figures of benchmarks and notes on tests are for links."""
FIRST = {
    "index.md": 3, "installation.md": 4, "configuration.md": 3, "outputs.md": 2, "report.md": 5, "verdict.md": 4,
    "alignment.md": 5, "transforms.md": 4, "images.md": 4, "measures.md": 6, "batch.md": 8, "itk.md": 7,
    "features.md": 2, "uncertainty.md": 3, "memory_speed.md": 3, "limits.md": 2, "gallery.md": 3,
    "concepts/transforms.md": 2, "architecture.md": 0.3, "conventions.md": 0.3, "dependencies.md": 0.4,
    "project/CHANGELOG.md": 0.2, "project/CONTRIBUTING.md": 0.3, "reference/command_line.md": 1,
    "reference/index.md": 1,
}  # fmt: skip
"""How much more the words of a page count in the search than those of others: users come before developers."""
OTHERS, REFERENCE = 1, 0.5
"""The same of pages that are not named, and of those of the reference."""
WORDS = {
    "index.md": "notebook jupyter",
    "installation.md": "gpu cuda install docker container apptainer offline hospital telemetry",
    "tutorials/ct_mr.md": "ct mr mri",
    "tutorials/brain.md": "brain",
    "tutorials/two_d.md": "histology slides 2d",
    "choose.md": "lung liver",
    "limits.md": "ultrasound pet",
    "configuration.md": "settings presets",
    "alignment.md": "rigid affine",
    "images.md": "dicom nifti mask masks nibabel freesurfer",
    "features.md": "network networks",
    "transforms.md": "transforms inverse points resample convert simpleitk ants elastix fsl",
    "napari.md": "napari viewer widget",
    "slicer.md": "slicer markups fiducials module extension",
    "outputs.md": "jacobian displacement progress log private exit",
    "batch.md": "batch bids slurm cluster cohort",
    "memory_speed.md": "threads memory speed",
    "measures.md": "landmarks labels dice folding",
    "reference/index.md": "python api",
    "reference/registration.md": "monai torchio",
}
"""What users type for a page, where its words alone would not lead there first."""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to where their files are in the site."""
    del files
    uri = page.file.src_uri
    page.meta["search"] = {
        "exclude": uri.startswith(f"{FOLDER}/") and uri not in FOUND,
        "boost": FIRST.get(uri, REFERENCE if uri.startswith("reference/") else OTHERS),
    }
    page.meta["tags"] = WORDS.get(uri, "").split()
    root = Path(config.config_file_path).parent
    source = repository_path(page.file.src_uri, root)

    def lead(target: str) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (root / path).is_file():
            return target  # mkdocs says what is wrong with it
        return posixpath.relpath(site_path(path), posixpath.dirname(page.file.src_uri) or ".")

    return replaced(markdown, lead)


def replaced(markdown: str, lead: Callable[[str], str]) -> str:
    """The text with the targets of its links replaced, but for those in blocks of code."""
    pieces, at = [], 0
    for fence in FENCE.finditer(markdown):
        pieces += [LINK.sub(lambda m: m[1] + lead(m[2]), markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*pieces, LINK.sub(lambda m: m[1] + lead(m[2]), markdown[at:])])


def targets(markdown: str, source: str) -> Iterator[str]:
    """What a file of the repository links to, as paths from the root of the repository."""
    for _, target in LINK.findall(FENCE.sub("", markdown)):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def navigated(nav: object, root: Path) -> Iterator[str]:
    """The files outside docs that the navigation names, as paths from the root of the repository."""
    if isinstance(nav, str) and nav.startswith(f"{FOLDER}/"):
        yield repository_path(nav, root)
    for inner in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from navigated(inner, root)


def site_path(path: str) -> str:
    """Where a file of the repository is in the site's sources."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{FOLDER}/{path}" if Path(path).suffix in {".md", *PICTURES} else f"{FOLDER}/{path}.md"


def repository_path(uri: str, root: Path) -> str:
    """The file of the repository at ``root`` that a source of the site stands for: what ``site_path`` undoes."""
    if not uri.startswith(f"{FOLDER}/"):
        return f"docs/{uri}"
    path = uri.removeprefix(f"{FOLDER}/")
    return path if (root / path).is_file() else path.removesuffix(".md")


def taken_in(path: str, root: Path, config: MkDocsConfig) -> File:
    """The page of one file of the repository, or the picture."""
    uri = site_path(path)
    if Path(path).suffix in {".md", *PICTURES}:
        return File.generated(config, uri, abs_src_path=str(root / path), inclusion=InclusionLevel.NOT_IN_NAV)
    text = (root / path).read_text(encoding="utf-8")
    language = LANGUAGES.get(Path(path).suffix, "text")
    content = f"# {Path(path).name}\n\n`{path}`\n\n````{language}\n{text.rstrip()}\n````\n"
    return File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV)
