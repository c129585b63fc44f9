"""Results laid out as derivatives of BIDS: images, transforms, what each was made of, and the description of all.

Copies files and writes JSON; reads no image. The transforms are those of the result, whose direction is the
standard's: ``transform.h5`` maps points of the fixed image to points of the moving one, and that is what resamples the
moving image (``from``) into the space of the fixed one (``to``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from semreg.batch.bids import EXTENSIONS
from semreg.batch.bids_names import DerivedNames, derived_names
from semreg.errors import ConfigError, OutputError
from semreg.io.atomic_output import UNFINISHED_KEY, OutputFolder
from semreg.io.records import stable_json
from semreg.io.result_folder import INVERSE, ResultFolder, read_json

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
IGNORED = "*_xfm.*\n"
"""Names of transforms are not in the standard yet: its validator is told, as fMRIPrep tells it."""
CONTAINER = Path("/etc/semreg/container.json")
"""What a container that semreg runs in says of itself, ``{"Type": "docker", "Tag": "…"}``."""
SETTINGS = ("config",)
"""Roles of inputs that are no data."""
README = """\
Registered images and transforms, written by semreg.

*_space-SPACE_desc-registered_*.nii.gz   the image in the space, on the grid that SpatialReference names
*_from-A_to-B_mode-image_xfm.h5          resamples images of A into the space of B; as ITK's transform it maps
                                         points of B to points of A, in mm, LPS
"""


@dataclass(frozen=True, kw_only=True)
class _Derived:
    """A result and its names."""

    names: DerivedNames
    place: ResultFolder
    inputs: Mapping[str, Path]
    """By their role: ``fixed``, ``moving``, ``fixed_mask``, …"""
    version: str
    """Of the semreg that registered."""
    image: Path
    """The warped one."""

    @property
    def extension(self) -> str:
        """Of the image."""
        return next(end for end in EXTENSIONS if self.image.name.endswith(end))

    @property
    def copies(self) -> dict[str, Path]:
        """What is copied, by its new name."""
        found = {f"{self.names.warped}{self.extension}": self.image, f"{self.names.forward}.h5": self.place.transform}
        return found | ({f"{self.names.backward}.h5": self.place.inverse} if self.place.inverse.is_file() else {})

    @property
    def absent(self) -> list[str]:
        """What an earlier result of the same images may have left and this one has not."""
        other = next(end for end in EXTENSIONS if end != self.extension)
        back = [] if self.place.inverse.is_file() else [f"{self.names.backward}{end}" for end in (".h5", ".json")]
        return [f"{self.names.warped}{other}", *back]


def write_derivatives(results: Sequence[Path], folder: Path, *, container: Path = CONTAINER) -> list[Path]:
    """Lay out results of ``semreg register`` or ``align`` as derivatives of a BIDS data set.

    All of them or none; what earlier calls laid out there stays. Only what the standard has names for is taken: the
    warped image and the transforms, each with a JSON file beside it.

    Args:
        results: folders of results, whose moving images are all of one data set.
        folder: the folder of derivatives, such as ``BIDS/derivatives/semreg``; made where it is missing.
        container: file in which a container says what it is, where there is one.

    Returns:
        The files written.

    Raises:
        ConfigError: for a folder that is no result, images without names of BIDS, or two results with one name.
        OutputError: for a folder that is not of this data set's derivatives, or that cannot be written.
    """
    derived = [_read(result) for result in results]
    root = check_derivatives([(each.inputs["fixed"], each.inputs["moving"]) for each in derived], folder)
    before = read_json(folder / DESCRIPTION) or {}
    more = {} if (inside := read_json(container)) is None else {"Container": inside}
    makers = [{"Name": "semreg", "Version": each.version, **more} for each in derived]
    about = description(root, folder, [*_makers_in(before), *makers])
    with OutputFolder(folder, record=DESCRIPTION) as out:
        try:
            for each in derived:
                _stage(each, out)
            out.stage(DESCRIPTION).write_text(stable_json(about), encoding="utf-8")
            for name, text in ((".bidsignore", IGNORED), ("README", README)):
                if not any(folder.glob(f"{name}*")):  # README.md counts too
                    out.stage(name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"expected to copy the results to {folder}, got: {error.strerror or error}") from error
        out.stale = [name for each in derived for name in each.absent]
    return out.files


def _stage(derived: _Derived, out: OutputFolder) -> None:
    """Copy the files of a result, and write what each is."""
    for name, source in derived.copies.items():
        place = out.stage(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    for name, sidecar in _sidecars(derived).items():
        out.stage(f"{name}.json").write_text(stable_json(sidecar), encoding="utf-8")


def check_derivatives(pairs: Iterable[tuple[Path, Path]], folder: Path) -> Path:
    """Whether pairs of a fixed and a moving image can be laid out in ``folder``; the folder of their data set.

    Raises ConfigError and OutputError, as ``write_derivatives``; reads no image.
    """
    seen: dict[str, Path] = {}
    roots: dict[Path, Path] = {}
    for fixed, moving in pairs:
        names = derived_names(fixed, moving)
        roots.setdefault(names.root.resolve(), moving)
        if seen.setdefault(names.warped, fixed) != fixed or len(roots) > 1:
            raise ConfigError(
                f"expected moving images of one data set, each with a fixed image of its own name, got {moving} onto "
                f"{fixed}, beside {', '.join(str(path) for path in (*roots.values(), seen[names.warped]))}: "
                "lay them out in folders of their own"
            )
    root = next(iter(roots))
    _check_folder(folder, root)
    return root


def description(root: Path, folder: Path, makers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``dataset_description.json`` says.

    Args:
        root: folder of the data set that is the source.
        folder: that of the derivatives.
        makers: what made them, each with ``Name`` and ``Version``, and ``Container`` where it ran in one; the version
            of a clone names its commit, ``0.1.dev200+g1a2b3c4``.

    Returns:
        The object of JSON.
    """
    source = read_json(root / DESCRIPTION) or {}
    link = _link(root, folder)
    doi = {"DOI": source["DatasetDOI"]} if "DatasetDOI" in source else {}
    return {
        "Name": f"semreg: registered images of {source.get('Name', root.name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": list({stable_json(maker): maker for maker in makers}.values()),
        "SourceDatasets": [{"URL": link, **doi}],
        "DatasetLinks": {"raw": link},
    }


def _makers_in(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a description says that it was made by."""
    makers = found.get("GeneratedBy")
    return [maker for maker in makers if isinstance(maker, dict)] if isinstance(makers, list) else []


def _link(root: Path, folder: Path) -> str:
    """From the derivatives to their source: relative where they lie inside of it, so that both can be moved."""
    inside = folder.resolve().is_relative_to(root)
    return quote(Path(os.path.relpath(root, folder.resolve())).as_posix()) if inside else root.as_uri()


def _check_folder(folder: Path, root: Path) -> None:
    """Refuse what is not of derivatives that semreg wrote of this data set (OutputError)."""
    place = folder.resolve()
    inside = place.relative_to(root).parts if place.is_relative_to(root) else None
    if inside is not None and (len(inside) < 2 or inside[0] != "derivatives"):
        raise OutputError(
            f"expected a folder of derivatives, got {folder} among the raw data: name {root / 'derivatives' / 'semreg'}"
        )
    before = read_json(folder / DESCRIPTION)
    if before is None or before.get(UNFINISHED_KEY):
        return
    ours = any(maker.get("Name") == "semreg" for maker in _makers_in(before))
    if not ours or before.get("DatasetLinks") != {"raw": _link(root, folder)}:
        raise OutputError(
            f"expected a new folder, or derivatives of {root} that semreg wrote, got {folder}, whose {DESCRIPTION} "
            "says something else: choose another"
        )


def _read(result: Path) -> _Derived:
    from semreg.quality.run import locate, read_result  # brings torch

    found = read_result(result)
    if found.record.private:
        raise ConfigError(f"expected a result that names its images, got {result}, made with --private: run it without")
    inputs = {
        role: locate(given.path, result).absolute()
        for role, given in found.record.inputs.items()
        if role not in SETTINGS
    }
    image = found.place.image("warped")
    if not image.name.endswith(EXTENSIONS):
        raise ConfigError(f"expected NIfTI, as BIDS wants it, got {image}: register with --format nii.gz")
    return _Derived(
        names=derived_names(inputs["fixed"], inputs["moving"]),
        place=found.place,
        inputs=inputs,
        version=found.record.versions.get("semreg", ""),
        image=image,
    )


def _sidecars(derived: _Derived) -> dict[str, dict[str, Any]]:
    """What the JSON files say, by the names they have without extension."""
    fixed, moving = derived.inputs["fixed"], derived.inputs["moving"]
    sources = {"Sources": [_uri(path, derived.names.root) for path in derived.inputs.values()]}
    found: dict[str, dict[str, Any]] = {
        derived.names.warped: {
            "Description": f"{moving.name}, registered to {fixed.name} and resampled on its grid by semreg",
            "SpatialReference": _uri(fixed, derived.names.root),
            "SkullStripped": _is_stripped(moving),
        },
        derived.names.forward: _of_transform(moving, fixed, derived.names.root),
    }
    if (derived.place.path / INVERSE).is_file():
        found[derived.names.backward] = _of_transform(fixed, moving, derived.names.root)
    return {name: sidecar | sources for name, sidecar in found.items()}


def _of_transform(source: Path, target: Path, root: Path) -> dict[str, Any]:
    return {
        "Description": (
            f"Transform of ITK that resamples {source.name} into the space of {target.name}: "
            "it maps points of the latter to points of the former, in mm, LPS"
        ),
        "SpatialReference": _uri(target, root),
    }


def _is_stripped(moving: Path) -> bool:
    """As the file beside the moving image says; raw images are not."""
    end = next(end for end in EXTENSIONS if moving.name.endswith(end))
    beside = read_json(moving.with_name(moving.name.removesuffix(end) + ".json")) or {}
    return beside.get("SkullStripped") is True


def _uri(path: Path, root: Path) -> str:
    """A file as BIDS names it: in the data set ``raw``, or where it lies on this machine."""
    inside = path.is_relative_to(root)
    return f"bids:raw:{quote(path.relative_to(root).as_posix())}" if inside else path.as_uri()
