"""The description of a command for 3D Slicer, in the XML of its execution model, made of the command's own flags.

Slicer builds the window of a module from it and gives each value as ``--name value``. Its names have no hyphens:
``--fixed-mask`` is ``fixed_mask`` there. A choice is always given, so one that is left open is ``default``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

from semreg.cli.panels import ALIGNMENT, ORDER, OUTPUT, SETTINGS
from semreg.cli.register_flags import Alignment
from semreg.presets import preset_names

OPEN = "default"
"""The element of a choice that leaves it open."""
IMAGES = "Images"
PLAIN = (IMAGES, OUTPUT, SETTINGS, ALIGNMENT)
"""The groups that are shown at once; the others are advanced."""
VERSION = "1"
"""Of the description: raised where a parameter is renamed or left out."""


@dataclass(frozen=True)
class Element:
    """What a flag is for Slicer: a tag of the execution model, its attributes, and whether it is read or written."""

    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    channel: str = ""
    choices: Callable[[], Iterable[str]] = tuple
    """The values of a choice."""


TEXT, SWITCH = Element("string"), Element("boolean")
IMAGE, LABELS = Element("image", channel="input"), Element("image", {"type": "label"}, "input")
POINTS = Element("pointfile", {"fileExtensions": ".fcsv", "coordinateSystem": "lps"}, "input")
FILE, FOLDER = Element("file", channel="input"), Element("directory", channel="input")
ENUMERATION = "string-enumeration"
VOLUME = Element("image", {"reference": "moving"}, "output")

SHOWN: Mapping[str, Element] = {
    "fixed": IMAGE,
    "moving": IMAGE,
    "output_transform": Element("transform", {"fileExtensions": ".h5", "reference": "moving"}, "output"),
    "output_volume": VOLUME,
    "uncertainty_volume": VOLUME,
    "output": Element("directory", channel="output"),
    "fixed_mask": LABELS,
    "moving_mask": LABELS,
    "initial": Element("transform", {"fileExtensions": ".h5"}, "input"),
    "modality": TEXT,
    "preset": Element(ENUMERATION, choices=preset_names),
    "config": FILE,
    "fast": SWITCH,
    "quality": SWITCH,
    "model": TEXT,
    "moving_model": TEXT,
    "layers": TEXT,
    "distance": TEXT,
    "folders": FOLDER,
    "align": Element(ENUMERATION, choices=lambda: Alignment),
    "restrict_axes": TEXT,
    "ensemble": TEXT,
    "stiffness": IMAGE,
    "fixed_landmarks": POINTS,
    "moving_landmarks": POINTS,
    "landmark_sd": TEXT,
    "keypoints": SWITCH,
    "fixed_labels": LABELS,
    "moving_labels": LABELS,
    "label_weight": TEXT,
    "device": TEXT,
}
"""The flags that Slicer shows, by the name of their parameter; the others keep their defaults."""


def execution_model(command: Any) -> str:
    """The XML that describes ``command``, a command of typer, to 3D Slicer."""
    root = ET.Element("executable")
    for name, text in {
        "category": "Registration",
        "title": "semreg (one pair)",
        "description": "Aligns and deforms the moving image onto the fixed one in feature space; judges the result.",
        "version": VERSION,
        "documentation-url": "",
        "license": "Apache-2.0",
        "contributor": "The semreg developers",
    }.items():
        ET.SubElement(root, name).text = text
    named = {each.name: each for each in command.params}
    shown = [named[name] for name in SHOWN]
    for panel in (IMAGES, *ORDER):
        members = [each for each in shown if _panel(each) == panel]
        if members:
            group = ET.SubElement(root, "parameters", {} if panel in PLAIN else {"advanced": "true"})
            ET.SubElement(group, "label").text = panel
            ET.SubElement(group, "description").text = f"{panel}, as in semreg register --help."
            for each in members:
                _add(group, each, shown)
            if panel == OUTPUT:
                _add_verdict(group)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def as_flags(words: Sequence[str], command: Any) -> list[str]:
    """The words that Slicer gives as the command takes them: names with hyphens, and no choice that is left open."""
    choices = {_long(each) for each in command.params if each.name in SHOWN and SHOWN[each.name].tag == ENUMERATION}
    given = [f"--{word[2:].replace('_', '-')}" if word.startswith("--") else word for word in words]
    left_open = {n for n, (name, value) in enumerate(pairwise(given)) if name in choices and value == OPEN}
    return [word for n, word in enumerate(given) if n not in left_open and n - 1 not in left_open]


def _panel(parameter: Any) -> str:
    return IMAGES if parameter.param_type_name == "argument" else str(parameter.rich_help_panel)


def _long(parameter: Any) -> str:
    """The long name of a flag."""
    return next(str(name) for name in parameter.opts if name.startswith("--"))


def _add(group: ET.Element, parameter: Any, shown: Sequence[Any]) -> None:
    """One parameter: arguments by their place, flags by their names; the default where a flag has one."""
    kind = SHOWN[parameter.name]
    made = ET.SubElement(group, kind.tag, dict(kind.attributes))
    argument = parameter.param_type_name == "argument"
    name = parameter.name if argument else _long(parameter)[2:].replace("-", "_")
    ET.SubElement(made, "name").text = name
    if argument:
        ET.SubElement(made, "index").text = str(shown.index(parameter))
    else:
        ET.SubElement(made, "longflag").text = name
    ET.SubElement(made, "label").text = name.replace("_", " ").capitalize()
    ET.SubElement(made, "description").text = parameter.help
    if kind.channel:
        ET.SubElement(made, "channel").text = kind.channel
    if kind.tag == ENUMERATION:
        ET.SubElement(made, "default").text = OPEN
        for value in (OPEN, *kind.choices()):
            ET.SubElement(made, "element").text = str(value)
    elif kind.tag == SWITCH.tag:
        ET.SubElement(made, "default").text = "false"
    elif kind.tag == TEXT.tag and isinstance(parameter.default, str):
        ET.SubElement(made, "default").text = parameter.default


def _add_verdict(group: ET.Element) -> None:
    """What is said at the end: Slicer reads it from the file of ``--returnparameterfile``."""
    made = ET.SubElement(group, "string")
    texts = {
        "name": "verdict",
        "label": "Verdict",
        "description": "PASS, REVIEW or FAIL, and why.",
        "channel": "output",
    }
    for name, text in {**texts, "default": ""}.items():
        ET.SubElement(made, name).text = text
