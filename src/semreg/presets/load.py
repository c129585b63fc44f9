"""Reading the preset files of the package, and putting layers of settings on each other."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from semreg.config import RegistrationConfig
from semreg.errors import ConfigError
from semreg.runtime.settings import from_dict, override, toml_table
from semreg.runtime.texts import read_text

EFFORTS = ("fast", "quality")
"""Presets that say how much time to take; they go with any pair, and on top of another preset."""

WORDS = ("description", "why")
"""What a file may hold beside settings, for its reader."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One file of settings: what it is for, why each setting is there, and the settings as nested tables."""

    name: str
    description: str
    """For which pairs, in one sentence."""
    why: str
    """Why each setting is what it is, what of it was measured and what is reasoned."""
    settings: dict[str, Any]
    text: str
    """The file as it is."""


def preset_names() -> tuple[str, ...]:
    """The presets for pairs, in the order of the alphabet."""
    found = (each.name.removesuffix(".toml") for each in _folder().iterdir() if each.name.endswith(".toml"))
    return tuple(sorted(name for name in found if name not in EFFORTS))


def effort_names() -> tuple[str, ...]:
    """The presets that say how much time to take: ``fast`` and ``quality``."""
    return EFFORTS


def load_preset(name: str) -> Preset:
    """The preset of that name. Raises ConfigError, with the nearest known name, if there is none."""
    known = (*preset_names(), *EFFORTS)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"expected a preset of {', '.join(known)}, got {name!r}: did you mean {nearest}? "
            "semreg presets show NAME prints one"
        )
    text = (_folder() / f"{name}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    description, why = str(table.pop("description")), str(table.pop("why"))
    return Preset(name=name, description=description, why=why.strip(), settings=table, text=text)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file with settings, without the ``description`` and ``why`` that it may hold.

    Raises ConfigError for a file that cannot be read or is no TOML.
    """
    table = toml_table(read_text(path, "a TOML file with settings"), f" in {path}")
    return {name: value for name, value in table.items() if name not in WORDS}


def configure(
    *assignments: str,
    preset: str | None = None,
    file: str | Path | None = None,
    effort: Literal["fast", "quality"] | None = None,
    beneath: str | Path | None = None,
    frames: bool = False,
) -> RegistrationConfig:
    """The settings that the command line would make from the same layers: each replaces what those before it say.

    The order is: the defaults, ``beneath``, ``preset``, ``file``, ``effort``, ``assignments``.

    Args:
        *assignments: single settings, each a ``"name=value"`` as after ``--set``; later ones replace earlier ones.
        preset: name of a preset (``semreg presets list``).
        file: a TOML file with settings, such as the ``config.toml`` of a run.
        effort: ``fast`` or ``quality``; None: neither.
        beneath: another TOML file, over which all else holds. The command line takes ``semreg.toml`` for it; from
            Python none is looked for.
        frames: whether the images are frames of one series: they are not aligned unless something but a preset, which
            is for pairs of scans, says so.

    Returns:
        The settings.

    Raises:
        ConfigError: for an unknown name (the message gives the nearest known one), a value of the wrong type or range,
            and a file that cannot be read.
    """
    layers: list[dict[str, Any]] = [{"align": {"transform": "none"}}] if frames else []
    if beneath is not None:
        layers.append(read_toml(Path(beneath)))
    if preset is not None:
        settings = load_preset(preset).settings
        if frames:
            settings.get("align", {}).pop("transform", None)
        layers.append(settings)
    if file is not None:
        layers.append(read_toml(Path(file)))
    if effort is not None:
        if effort not in EFFORTS:
            raise ConfigError(
                f"expected effort of {' or '.join(EFFORTS)}, got {effort!r}: leave it out for the default"
            )
        layers.append(load_preset(effort).settings)
    return reduce(override, assignments, layered(*layers))


def layered(*layers: Mapping[str, Any]) -> RegistrationConfig:
    """The defaults with ``layers`` of nested tables on top, each over those before it (ConfigError).

    Single settings replace single settings; a list, that of the models too, replaces the whole list.
    """
    return from_dict(RegistrationConfig, reduce(_over, layers, {}))


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        result[name] = _over(under, value) if both and under is not None else value
    return result


def _folder() -> Any:
    return resources.files("semreg.presets")
