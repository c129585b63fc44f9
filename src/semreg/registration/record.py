"""The record of a run: stable JSON and the versions that made it. Knows nothing of images."""

from __future__ import annotations

import json
import math
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import semreg


def versions() -> dict[str, str]:
    """Versions of semreg, Python and the packages that compute, read from their metadata."""
    found = {"semreg": semreg.__version__, "python": platform.python_version()}
    for name in ("torch", "SimpleITK", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def stable_json(value: Any) -> str:
    """JSON with sorted keys; a number that is not finite becomes null."""
    return json.dumps(_finite(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
