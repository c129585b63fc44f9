"""Metrics written in Python for ITK's v4 registration: the binary part of semreg.

``make_metric(dimension, target, name)`` of the loaded module gives an ``itk`` metric that calls ``target``;
``semreg.itk.api.PythonMetricv4`` is the comfortable way to it.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SUPPORTED = "5.4"
"""The series of ITK whose virtual functions lie where this module expects them."""
LEAST = 3
"""The first of that series; before it ITK's transforms had fewer virtual functions, and no names of spaces."""

__all__ = ["LEAST", "SUPPORTED", "check", "load"]


def check() -> None:
    """Raise ImportError, with one sentence on what to do, unless the module can be used."""
    load()


def load() -> Any:
    """The binary module, with ``make_metric`` and ``map_points``; loads the parts of itk that it needs."""
    try:
        installed = version("itk-core")
    except PackageNotFoundError:
        raise ImportError(
            f"expected the package itk {SUPPORTED} for v4 metrics, got none: pip install 'itk>=5.4.3,<5.5'"
        ) from None
    if installed.split(".")[:2] != SUPPORTED.split("."):
        raise ImportError(
            f"expected itk {SUPPORTED}.x, which semreg-itkv4 is built for, got itk {installed}: "
            "pip install 'itk>=5.4.3,<5.5', or build semreg-itkv4 for that version"
        )
    if int(re.findall(r"\d+", f"{installed}.0")[2]) < LEAST:
        raise ImportError(
            f"expected itk {SUPPORTED}.{LEAST} or later for v4 metrics, got itk {installed}: "
            "pip install 'itk>=5.4.3,<5.5'"
        )
    import itk

    beside = Path(__file__).resolve().parents[1] / "itk"
    if Path(itk.__file__).resolve().parent != beside:
        raise ImportError(
            f"expected itk beside semreg-itkv4, in {beside}, got it from {Path(itk.__file__).parent}: "
            "install both into one environment"
        )
    for name in ("ImageRegistrationMethodv4", "MeanSquaresImageToImageMetricv4"):
        getattr(itk, name)  # loads its library and makes its types known
    return importlib.import_module("semreg_itkv4._bridge")
