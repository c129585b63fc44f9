"""Pairs of images of a BIDS data set, by rules of entities. Reads names, no image.

Brain Imaging Data Structure (Gorgolewski et al., Scientific Data 2016): a file is called
``sub-01_ses-02_acq-fine_T1w.nii.gz``; entities are a key and a label, the suffix says what kind of image it is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semreg.batch.pairs import Pair, check_pairs
from semreg.errors import ConfigError

ENTITIES = {
    "subject": "sub", "session": "ses", "sample": "sample", "task": "task", "tracksys": "tracksys",
    "acquisition": "acq", "ceagent": "ce", "tracer": "trc", "staining": "stain", "reconstruction": "rec",
    "direction": "dir", "run": "run", "modality": "mod", "echo": "echo", "flip": "flip", "inversion": "inv",
    "mtransfer": "mt", "part": "part", "processing": "proc", "hemisphere": "hemi", "space": "space",
    "split": "split", "recording": "recording", "chunk": "chunk", "segmentation": "seg", "resolution": "res",
    "density": "den", "label": "label", "description": "desc",
}  # fmt: skip
"""Long names and the keys in file names; a rule may use either."""
INDICES = {"run", "echo", "flip", "inv", "split", "chunk"}
"""Keys whose labels are numbers: ``1`` is ``01``."""
OTHERS = ("suffix", "datatype", "extension")
EXTENSIONS = (".nii.gz", ".nii")
LEFT_OUT = {"derivatives", "sourcedata", "code", "stimuli", "phenotype"}
"""Folders at the top that hold no raw images."""

PART = re.compile(r"([a-zA-Z0-9]+)-([a-zA-Z0-9+]+)")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A file and what its name says."""

    path: Path
    values: Mapping[str, str]
    """Labels by the keys of file names, and ``suffix``, ``datatype`` (the folder) and ``extension``."""

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return self.path.name.removesuffix(self.values["extension"])


@dataclass(frozen=True)
class Rule:
    """Which files: each value must be as it is said; an empty one must not be there."""

    values: Mapping[str, str]

    def fits(self, file: Named) -> bool:
        """Whether a file is meant."""
        return all(same_label(key, value, file.values.get(key, "")) for key, value in self.values.items())


def parse_rule(text: str, flag: str = "--fixed") -> Rule:
    """A rule from ``suffix=T1w,session=01``; raises ConfigError for unknown names, with the nearest known one."""
    values: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        key = ENTITIES.get(name.strip(), name.strip())
        known = (*ENTITIES, *ENTITIES.values(), *OTHERS)
        if not equals:
            raise ConfigError(f"expected {flag} as name=value with commas between, such as suffix=T1w, got {text!r}")
        if name.strip() not in known:
            nearest = difflib.get_close_matches(name.strip(), known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"expected {flag} with names of BIDS, got {name.strip()!r}: did you mean {nearest}?")
        if key in values:
            raise ConfigError(f"expected {flag} with {name.strip()} once, got it twice: {text!r}")
        label = value.strip().removeprefix(f"{key}-")
        values[key] = f".{label.lstrip('.')}" if key == "extension" else label
    return Rule(values)


def bids_pairs(folder: Path, fixed: str, moving: str, *, across: bool = False) -> list[Pair]:
    """The pairs of a BIDS data set.

    ``fixed`` and ``moving`` are rules such as ``suffix=T1w,session=01``; ``fixed`` may be a file, the fixed image of
    all. Each moving image goes with the fixed image of its subject; of several fixed images with the one of its
    session, and of those with the one of its run. ``across``: the rule of the fixed image means one file, for all
    subjects. Raises ConfigError where no pair is found or where it stays open which fixed image is meant.
    """
    files = list(_files(folder))
    if not files:
        raise ConfigError(
            f"expected a BIDS data set with files such as sub-01/anat/sub-01_T1w.nii.gz, got none in {folder}"
        )
    targets = _matching(files, moving, "--moving", folder)
    if Path(fixed).is_file():
        found = [(Path(fixed).absolute(), target) for target in targets]
    else:
        sources = _matching(files, fixed, "--fixed", folder)
        if across:
            one = _only_one(sources, fixed)
            found = [(one.path, target) for target in targets if target.path != one.path]
        else:
            found = [(source.path, target) for target in targets for source in _partner(target, sources)]
    if not found:
        raise ConfigError(f"expected a subject of {folder} with a fixed and a moving image, got none: change the rules")
    pairs = [_pair(path, target, folder) for path, target in found]
    check_pairs(pairs)
    return pairs


def _files(folder: Path) -> Iterator[Named]:
    """All images with names of BIDS, sorted; what lies in hidden folders and beside the raw data is left out."""
    for path in sorted(folder.absolute().rglob("sub-*")):
        inside = path.relative_to(folder.absolute()).parts
        if inside[0] in LEFT_OUT or any(part.startswith(".") for part in inside):
            continue
        named = parse_name(path)
        if named is not None and path.is_file():
            yield named


def parse_name(path: Path) -> Named | None:
    """What the name of a file says; None for names that are none of BIDS and for what is no image."""
    extension = next((end for end in EXTENSIONS if path.name.endswith(end)), None)
    if extension is None:
        return None
    *parts, suffix = path.name.removesuffix(extension).split("_")
    matches = [PART.fullmatch(part) for part in parts]
    if not parts or not suffix.isalnum() or not all(matches):
        return None
    values = {match[1]: match[2] for match in matches if match is not None}
    if "sub" not in values:
        return None
    return Named(path=path, values=values | {"suffix": suffix, "datatype": path.parent.name, "extension": extension})


def _matching(files: Sequence[Named], text: str, flag: str, folder: Path) -> list[Named]:
    rule = parse_rule(text, flag)
    found = [file for file in files if rule.fits(file)]
    if not found:
        suffixes = ", ".join(sorted({file.values["suffix"] for file in files}))
        raise ConfigError(f"expected images for {flag} {text} in {folder}, got none; there are: {suffixes}")
    return found


def _only_one(files: Sequence[Named], text: str) -> Named:
    if len(files) > 1:
        names = ", ".join(file.path.name for file in files[:3])
        raise ConfigError(
            f"expected one image for --fixed {text} with --across, got {len(files)}: {names}; say more, such as sub="
        )
    return files[0]


def _partner(moving: Named, fixed: Sequence[Named]) -> list[Named]:
    """The fixed image of a moving one; none where its subject has none."""
    found = [file for file in fixed if file.values["sub"] == moving.values["sub"] and file.path != moving.path]
    for key in ("ses", "run"):
        if len(found) > 1:
            found = [file for file in found if same_label(key, file.values.get(key, ""), moving.values.get(key, ""))]
    if len(found) > 1:
        names = ", ".join(file.path.name for file in found)
        raise ConfigError(
            f"expected one fixed image for {moving.path.name}, got {len(found)}: {names}; "
            "say more in --fixed, such as run=1"
        )
    return found


def _pair(fixed: Path, moving: Named, folder: Path) -> Pair:
    named = parse_name(fixed)
    stem = fixed.name.partition(".")[0] if named is None else named.stem
    same = named is not None and named.values["sub"] == moving.values["sub"]
    short = stem.removeprefix(f"sub-{moving.values['sub']}_") if same else stem
    notes = [
        (name, moving.values[key]) for name, key in (("subject", "sub"), ("session", "ses")) if key in moving.values
    ]
    return Pair(
        name=f"{moving.stem}-to-{short}",
        fixed=fixed,
        moving=moving.path,
        notes=tuple(notes),
        where=f"{folder}, {moving.path.name}",
    )


def same_label(key: str, one: str, other: str) -> bool:
    """Whether two labels of an entity mean the same: of indices ``1`` is ``01``."""
    both = key in INDICES and one.isdecimal() and other.isdecimal()
    return int(one) == int(other) if both else one == other
