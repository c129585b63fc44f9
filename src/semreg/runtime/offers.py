"""What a thing of a lower floor offers for convenience and a higher one makes: by name, imported when it is asked for.

So ``volume.to_sitk()`` is there without the core knowing SimpleITK, and a result shows itself without knowing of pages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from semreg.runtime.registry import Row, Table

OFFERS: Table[Row, Callable[..., Any]] = Table(
    "offer",
    {
        "image as sitk": Row("semreg.io.bridge.simpleitk:sitk_image"),
        "image as itk": Row("semreg.io.bridge.itk:itk_image"),
        "image as nibabel": Row("semreg.io.bridge.nifti1:nibabel_image"),
        "field as sitk": Row("semreg.io.bridge.simpleitk:sitk_transform"),
        "field as itk": Row("semreg.io.bridge.itk:itk_transform"),
        "field as nibabel": Row("semreg.io.bridge.nifti1:nibabel_field"),
        "result as html": Row("semreg.report.notebook:html_of"),
        "result shown": Row("semreg.report.notebook:show"),
    },
)
