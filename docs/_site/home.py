"""Hook of mkdocs: the start page is the site's home, though the navigation has it inside of a section.

Without a home the logo leads to ``.``, which shows a list of files where the pages are opened from a disk.
"""  # noqa: INP001 - loaded by its path

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Name the home."""
    del config
    start = files.get_file_from_path("index.md")
    nav.homepage = start.page if start is not None else nav.homepage
    return nav
