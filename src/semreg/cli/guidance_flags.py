"""The flags of what guides a registration beside the images, and what they stand for. Reads nothing at its top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semreg.cli.panels import GUIDANCE, flag
from semreg.errors import ConfigError

if TYPE_CHECKING:
    from semreg.io.bridge import LabelMap, LoadedImage
    from semreg.registration.guidance import Guidance

SD_MM = "2"


@dataclass(frozen=True, kw_only=True)
class GuidanceFlags:
    """Landmarks and labels that pull during the whole deformation."""

    landmarks: Annotated[
        tuple[Path, Path] | None,
        flag("Points that correspond, a file for each image.", "FIXED MOVING", panel=GUIDANCE),
    ] = None
    landmark_sd: Annotated[
        str, flag("How far a point may be off, mm; or a file, a line a point.", "MM", panel=GUIDANCE)
    ] = SD_MM
    fixed_labels: Annotated[Path | None, flag("Labels of the fixed image; 0 is no label.", "FILE", panel=GUIDANCE)] = (
        None
    )
    moving_labels: Annotated[
        Path | None, flag("Labels of the moving image, the same numbers.", "FILE", panel=GUIDANCE)
    ] = None
    segment: Annotated[
        str | None, flag("A network whose classes are the labels of both images.", "FILE|NAME", panel=GUIDANCE)
    ] = None
    segment_spec: Annotated[
        tuple[str, ...],
        flag("What its description is to say instead; repeatable.", "NAME=VALUE", panel=GUIDANCE),
    ] = ()
    label_weight: Annotated[
        tuple[str, ...],
        flag("How much labels count, N, or one of them, LABEL=N; repeatable.", "N", panel=GUIDANCE),
    ] = ()

    def check(self) -> None:
        """Refuse what has no meaning alone (ConfigError)."""
        if (self.fixed_labels is None) != (self.moving_labels is None):
            raise ConfigError("expected --fixed-labels and --moving-labels together, got one of them: give both")
        if self.segment is not None and self.fixed_labels is not None:
            raise ConfigError("expected --segment or --fixed-labels and --moving-labels, got all: leave one way out")
        if self.label_weight and self.fixed_labels is None and self.segment is None:
            raise ConfigError("expected --label-weight with labels or --segment, got it alone")
        if self.segment_spec and self.segment is None:
            raise ConfigError("expected --segment-spec with --segment, got it alone")
        if self.landmark_sd != SD_MM and self.landmarks is None:
            raise ConfigError("expected --landmark-sd with --landmarks, got it alone")

    @property
    def inputs(self) -> dict[str, Path | None]:
        """The files that are read, by their role."""
        points = self.landmarks or (None, None)
        return {
            "guiding_fixed_landmarks": points[0],
            "guiding_moving_landmarks": points[1],
            "fixed_labels": self.fixed_labels,
            "moving_labels": self.moving_labels,
            "segment": None if self.segment is None or not Path(self.segment).is_file() else Path(self.segment),
        }


def read_guidance(flags: GuidanceFlags, images: Mapping[str, LoadedImage]) -> Guidance | None:
    """What the flags name; None: nothing guides."""
    if flags.landmarks is None and flags.fixed_labels is None and flags.segment is None:
        return None
    from semreg.features.trial import try_model
    from semreg.quality import read_both
    from semreg.registration.guidance import Guidance

    if flags.segment is not None:
        try_model(flags.segment, flags.segment_spec)
    sides = {"fixed": flags.fixed_labels, "moving": flags.moving_labels}
    maps = {name: read_label_map(path, images[name]) for name, path in sides.items() if path is not None}
    weight, weights = _weights(flags.label_weight, tuple(maps.values()))
    return Guidance(
        landmarks=None if flags.landmarks is None else read_both(flags.landmarks, images),
        landmark_sd_mm=_deviations(flags.landmark_sd),
        labels=(maps["fixed"], maps["moving"]) if maps else None,
        segment=flags.segment,
        segment_spec=flags.segment_spec,
        label_weight=weight,
        weights=weights,
    )


def read_label_map(path: Path, image: LoadedImage) -> LabelMap:
    """A label map; a picture in the unit of its image."""
    from semreg.io.files import in_unit_of, read_labels

    found = read_labels(path)
    return found.at(in_unit_of(found.grid, path, image.volume.grid))


def _deviations(text: str) -> float | list[float]:
    """A number, or those of a file."""
    from semreg.runtime.texts import read_text

    try:
        return float(text)
    except ValueError:
        lines = read_text(Path(text), "a number of mm, or a file of them,", ConfigError).split()
    try:
        return [float(line) for line in lines]
    except ValueError as error:
        raise ConfigError(f"expected a number of mm in each line of {text}, got another word: {error}") from None


def _weights(given: tuple[str, ...], maps: tuple[LabelMap, ...]) -> tuple[float, dict[int, float]]:
    """The weight of all labels, and those of single ones, which are called by their number or their name."""
    numbers = {name: number for each in maps for number, name in each.names.items()}
    weight, weights = 1.0, {}
    for text in given:
        name, equals, value = text.rpartition("=")
        try:
            if equals:
                weights[numbers[name] if name in numbers else int(name)] = float(value)
            else:
                weight = float(text)
        except ValueError:
            known = f" or one of {', '.join(sorted(numbers)[:8])}" if numbers else ""
            raise ConfigError(
                f"expected --label-weight as a number, or as LABEL=NUMBER with the number of a label{known}, got {text}"
            ) from None
    return weight, weights
