"""A result in a notebook: three planes of both images with a slider each, as one piece of HTML without libraries.

Slices are sheets of pictures, of which a slider shows one, so without a script the middle ones are seen. ``show``
opens the page where there is no notebook.
"""

from __future__ import annotations

import html
import secrets
import sys
import tempfile
import webbrowser
from pathlib import Path

import numpy as np

from semreg.errors import ConfigError
from semreg.registration.result import Registration
from semreg.report.case import Case
from semreg.report.encode import enlarged, uri
from semreg.report.page import write_report
from semreg.report.pictures import size_of
from semreg.report.planes import Plane, planes_of
from semreg.report.stacks import Stacks, make_stacks

LONGEST, MOST_SLICES, QUALITY = 230, 25, 70
"""Pixels of the longer side, slices of a plane, and their quality as JPEG."""
SLICES = "{box}.querySelectorAll('i').forEach(e=>e.style.backgroundPositionY=-this.value*{height}+'px')"
STRENGTH = "{box}.querySelectorAll('.b').forEach(e=>e.style.opacity=this.value/100)"


def html_of(result: Registration) -> str:
    """Three planes with a slider each, and one from the fixed image to the warped one, as HTML."""
    stacks = make_stacks(case_of(result))
    name = f"semreg-{secrets.token_hex(4)}"
    planes = "".join(_plane(stacks, plane) for plane in planes_of(stacks.grid))
    change = STRENGTH.format(box="this.closest('div')")
    return (
        f'<div id="{name}" style="font:13px system-ui,sans-serif;max-width:760px"><p style="margin:4px 0">'
        f"<b>{html.escape(repr(result))}</b></p>"
        f'<div style="display:flex;gap:8px;flex-wrap:wrap;align-items:flex-start">{planes}</div>'
        f'<label>fixed <input type="range" min="0" max="100" value="50" oninput="{change}" '
        'aria-label="From the fixed to the warped image" style="vertical-align:middle"> moving, warped</label></div>'
    )


def show(result: Registration) -> Path | None:
    """Show a result below the cell of a notebook; elsewhere open its page in the browser, and return the file."""
    shell = sys.modules.get("IPython")
    if shell is not None and shell.get_ipython() is not None:
        sys.modules["IPython"].display.display(sys.modules["IPython"].display.HTML(html_of(result)))
        return None
    path = Path(tempfile.mkdtemp(prefix="semreg-")) / "report.html"
    write_report(case_of(result), path)
    webbrowser.open(path.as_uri())
    return path


def case_of(result: Registration) -> Case:
    """What a page shows of a result and the images that it keeps (ConfigError where it keeps none)."""
    fixed, moving = result.images
    if fixed is None or moving is None:
        raise ConfigError(
            "expected a result with its images, got one that was read from files without them: use "
            "semreg.open(folder), which finds them by the record, or semreg.report.Case.of(result, fixed, moving)"
        )
    return Case.of(result, fixed, moving)


def _plane(stacks: Stacks, plane: Plane) -> str:
    """A pane of slices one below the other, of which one is seen, and its slider."""
    depth = stacks.shape[plane.across]
    numbers = np.unique(np.linspace(0, depth - 1, min(depth, MOST_SLICES)).round().astype(int))
    height, width = size_of(stacks, plane, LONGEST)
    start = len(numbers) // 2
    layers = ""
    for kind, name in (("a", "fixed"), ("b", stacks.states[-1].key)):
        sheet = np.concatenate([enlarged(stacks.cut(name, plane, int(n)), (height, width)) for n in numbers])
        layers += (
            f'<i class="{kind}" style="position:absolute;inset:0;background:url({uri(sheet, quality=QUALITY)}) '
            f'0 {-start * height}px;opacity:{0.5 if kind == "b" else 1}"></i>'
        )
    left, right, top, bottom = (html.escape(letter) for letter in plane.letters)
    edges = (("left:3px;top:45%", left), ("right:3px;top:45%", right), ("top:1px;left:47%", top),
             ("bottom:1px;left:47%", bottom))  # fmt: skip
    letters = "".join(
        f'<b style="position:absolute;{where};color:#fff;background:rgba(0,0,0,.6);padding:0 3px">{letter}</b>'
        for where, letter in edges
        if letter
    )
    change = SLICES.format(box="this.closest('figure')", height=height)
    slider = (
        f'<input type="range" min="0" max="{len(numbers) - 1}" value="{start}" oninput="{change}" '
        f'aria-label="{plane.name} slice" style="width:100%;margin:2px 0">'
    )
    return (
        f'<figure style="margin:0;width:{width}px"><div style="position:relative;width:{width}px;height:{height}px;'
        f'background:#000;overflow:hidden">{layers}{letters}</div>'
        f"{slider if len(numbers) > 1 else ''}<figcaption>{plane.name if plane.along else ''}</figcaption></figure>"
    )
