"""Names of what a registration made, as derivatives of BIDS have them. Reads names, no file.

``sub-01_space-T1w_desc-registered_T2w.nii.gz`` is the moving image in the space of the fixed one. The standard
has ``space`` and ``desc``; ``from``, ``to``, ``mode`` and ``xfm`` are those of its extension proposal 14, spatial
transforms, as fMRIPrep writes them (Esteban et al., Nature Methods 2019).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from semreg.batch.bids import ENTITIES, OTHERS, Named, parse_name, same_label
from semreg.errors import ConfigError

TEMPLATE = re.compile(r"tpl-([a-zA-Z0-9+]+)_")
"""What the name of a template of TemplateFlow starts with."""
ORDER = list(ENTITIES.values())
"""Of the entities in a name."""
REGISTERED = "registered"
"""Label of ``desc``."""


@dataclass(frozen=True, kw_only=True)
class DerivedNames:
    """Where a result belongs; paths are relative to the folder of derivatives and have no extension."""

    root: Path
    """The data set that the moving image is of."""
    warped: str
    forward: str
    """The transform that resamples the moving image into the space of the fixed one."""
    backward: str
    """The transform that resamples the fixed image into the space of the moving one."""


def derived_names(fixed: Path, moving: Path) -> DerivedNames:
    """The names of what comes of a registration.

    Args:
        fixed: path of the fixed image; it may have any name.
        moving: path of the moving image, ``…/sub-01/anat/sub-01_T2w.nii.gz``; its entities are those of the names.

    Returns:
        The names, and the folder of the data set.

    Raises:
        ConfigError: for a moving image that is no image of a BIDS data set, or two images with one name.
    """
    named = parse_name(moving.absolute())
    root = None if named is None else _root_of(named)
    if named is None or root is None:
        raise ConfigError(
            f"expected a moving image of a BIDS data set, such as sub-01/anat/sub-01_T2w.nii.gz, got {moving}: "
            "derivatives have its name"
        )
    target = parse_name(fixed)
    space = _space_of(fixed, target, named)
    near = target is not None and target.values["sub"] == named.values["sub"]
    source = _label(named, {} if target is None else target.values) if near else named.values["suffix"]
    if source == space:
        raise ConfigError(f"expected two images with names of their own, got {fixed} and {moving}: rename one of them")
    values = {key: label for key, label in named.values.items() if key not in (*OTHERS, "space", "desc")}
    folder = moving.absolute().parent.relative_to(root).as_posix()
    stem = f"{folder}/{_joined(values)}"
    image = _joined(values | {"space": space, "desc": REGISTERED})
    return DerivedNames(
        root=root,
        warped=f"{folder}/{image}_{named.values['suffix']}",
        forward=f"{stem}_from-{source}_to-{space}_mode-image_xfm",
        backward=f"{stem}_from-{space}_to-{source}_mode-image_xfm",
    )


def _root_of(named: Named) -> Path | None:
    """The folder with that of the subject in it."""
    subject = f"sub-{named.values['sub']}"
    return next((folder.parent for folder in named.path.parents if folder.name == subject), None)


def _space_of(fixed: Path, target: Named | None, moving: Named) -> str:
    """Label of the space of a fixed image: of a template its name, else what tells it from the moving image."""
    template = TEMPLATE.match(fixed.name)
    if template is not None:
        return template[1]
    if target is not None:
        return _label(target, moving.values)
    return re.sub(r"[^a-zA-Z0-9]", "", fixed.name.partition(".")[0]) or "fixed"


def _label(named: Named, other: Mapping[str, str]) -> str:
    """The entities in which an image differs from the other one, and its suffix: ``ses01T1w``."""
    own = _sorted({key: label for key, label in named.values.items() if key not in OTHERS})
    differs = [key + label for key, label in own.items() if not same_label(key, label, other.get(key, ""))]
    return "".join(differs) + named.values["suffix"]


def _joined(values: Mapping[str, str]) -> str:
    return "_".join(f"{key}-{label}" for key, label in _sorted(values).items())


def _sorted(values: Mapping[str, str]) -> dict[str, str]:
    """In the standard's order; what it does not know stands before the space."""
    last = ORDER.index("space") - 0.5
    return dict(sorted(values.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else last))
