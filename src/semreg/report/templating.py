"""One look for all pages: the template environment with everything inlined. Knows nothing of images.

A page is one file: styles, scripts and pictures are inside it, and its policy forbids everything from elsewhere.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

SYMBOLS = {"PASS": "✓", "REVIEW": "◉", "FAIL": "✕", "NONE": "–"}
"""What stands beside the word of a verdict, so that colour never says it alone."""


@functools.cache  # templates are compiled once a process
def environment(*packages: str) -> Environment:
    """The templates of ``semreg.report`` and, before them, those in the folder ``templates`` of other ``packages``.

    All text is escaped. In a template ``asset("name.css")`` is the content of a file beside the templates, as it is,
    and ``SYMBOLS`` is the sign of each verdict. Pages extend ``base.html.j2`` with its blocks title, style, header,
    tools, main, footer and script.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    places = (*packages, "semreg.report")

    def asset(name: str) -> Markup:
        for package in places:
            file = resources.files(package) / "templates" / name
            if file.is_file():
                return Markup(file.read_text(encoding="utf-8"))  # noqa: S704 - a file of the package, not a user's
        raise FileNotFoundError(name)

    loader = ChoiceLoader([PackageLoader(package) for package in places])
    env = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    env.globals.update(asset=asset, SYMBOLS=SYMBOLS)
    return env
