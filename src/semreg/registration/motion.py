"""The motion in a series over time: each frame brought to one of them or to their mean, rigidly or deformably.

Maps may be smoothed in time by a running polynomial (Savitzky, Golay: Smoothing and differentiation of data by
simplified least squares procedures. Analytical Chemistry, 1964), around the cycle where the motion repeats, as that of
breathing. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

from semreg.config import AlignConfig, RegistrationConfig
from semreg.core.fields import Field, Volume, background, warp
from semreg.core.geometry import Matrix
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import field_of_transform, transform_of
from semreg.preprocess.body import content_mask
from semreg.registration.pipeline import register
from semreg.registration.realign import realign
from semreg.registration.template import TemplateOptions, build_template, for_rounds
from semreg.runtime.settings import require
from semreg.transforms.chain import voxel_points
from semreg.transforms.maps import fit_points, mapped

DEGREE = 2
"""Of the polynomial through the frames of a window: it keeps the extremes of a motion, which a mean would cut off."""
DEFAULTS = RegistrationConfig(align=AlignConfig(transform="none"))
"""Nothing is aligned before: all frames lie in one scanner."""


class Kind(StrEnum):
    """How frames differ."""

    RIGID = "rigid"
    """By rotation and shift, in one contrast: the head."""
    DEFORMABLE = "deformable"
    """By any smooth displacement: breathing, the heart."""


@dataclass(frozen=True, kw_only=True)
class MotionOptions:
    """What a series is brought to, and how."""

    kind: Kind = Kind.RIGID
    reference: int | None = None
    """The frame that all are brought to, from 0; None: their mean."""
    smooth: int = 0
    """Frames of the window in which the maps are smoothed in time, odd, at least 5; 0: they are not."""
    cyclic: bool = False
    """Whether the first frame follows on the last one."""
    rounds: int = 2
    """How often the mean is made anew."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        window = self.smooth == 0 or (self.smooth >= 5 and self.smooth % 2 == 1)
        require(window, "a window of 0 or of an odd number of frames from 5 on", self.smooth)
        require(self.reference is None or self.reference >= 0, "a reference of 0 or more", self.reference)
        require(1 <= self.rounds <= 100, "rounds between 1 and 100", self.rounds)


@dataclass(frozen=True, kw_only=True)
class FrameMotion:
    """How the map from the reference to a frame moves what the reference shows."""

    frame: int
    shift_mm: tuple[float, ...]
    """Of the middle of what is shown, x y(, z), LPS."""
    rotation_deg: tuple[float, ...]
    """Rotation vector: about x, y and z; in 2-D one angle."""
    deformation_mm: float
    """Mean length of the displacement without rotation and shift."""
    framewise_mm: float
    """Mean distance from where the frame before has the same points; of the first frame in a cycle the last one's, else
    0."""


@dataclass(frozen=True)
class Motion:
    """A series whose motion is known."""

    reference: Volume
    """(1, *S): the frame, or the mean of all."""
    fields: tuple[Field, ...]
    """Reference → frame, on the grid of the series."""
    frames: tuple[FrameMotion, ...]
    options: MotionOptions

    def corrected(self, series: Sequence[Volume]) -> Iterator[Volume]:
        """Each frame of the series (1, *S) as the reference shows it."""
        for frame, field in zip(series, self.fields, strict=True):
            yield warp(frame, field, outside=background(frame))


def correct_motion(
    series: Sequence[Volume],
    *,
    options: MotionOptions | None = None,
    config: RegistrationConfig | None = None,
    device: str = "auto",
    on_frame: Callable[[int, int], None] | None = None,
) -> Motion:
    """Find how the frames of a series have moved.

    Args:
        series: two frames or more (1, *S) on one grid.
        options: what they are brought to, and how.
        config: the settings of all deformable registrations. None: the defaults without an alignment.
        device: where they are computed.
        on_frame: is told the number of a round and of a frame, both from 1, before it is registered.

    Returns:
        The maps reference → frame, and what they do in each frame.

    Raises:
        ConfigError: for fewer frames than two or than the window has, and for a reference that is none of them.
        GeometryError: for frames on several grids; all that ``register`` raises.
    """
    options = options or MotionOptions()
    _check(series, options)
    config = config or DEFAULTS
    work = _Frames(series, options, config, device, on_frame)
    if options.reference is None:
        made = build_template(series, options=TemplateOptions(rounds=options.rounds), registrar=work)
        reference, fields = made.image, tuple(made.fields)
    else:
        reference = series[options.reference]
        fields = tuple(work.register(reference, 1, ()))
    return Motion(reference, fields, measured(reference, fields, cyclic=options.cyclic), options)


@dataclass(frozen=True)
class _Frames:
    """Registers the frames of a series; their maps are smoothed in time before anybody sees them."""

    series: Sequence[Volume]
    options: MotionOptions
    config: RegistrationConfig
    device: str
    on_frame: Callable[[int, int], None] | None

    def align(self, start: int) -> Sequence[Matrix]:
        """All frames lie in one scanner."""
        del start
        return [np.eye(self.series[0].grid.dimension + 1)] * len(self.series)

    def register(self, template: Volume, number: int, initial: Sequence[Matrix]) -> Iterable[Field]:
        """The fields template → frame."""
        del initial
        if self.options.kind is Kind.RIGID:
            found = self._rigid(template, number)
            steady = smoothed(np.stack([scipy.linalg.logm(matrix).real for matrix in found]), self.options)
            matrices = [scipy.linalg.expm(each) for each in steady]
            return [field_of_transform(transform_of(matrix), template.grid) for matrix in matrices]
        fields = [self._deformable(template, number, each) for each in range(len(self.series))]
        if not self.options.smooth:
            return fields
        vectors = smoothed(np.stack([field.vox.numpy() for field in fields]), self.options)
        return [Field(torch.from_numpy(each), template.grid) for each in vectors.astype(np.float32)]

    def _rigid(self, template: Volume, number: int) -> list[Matrix]:
        """One frame after the other, each from where the one before is, and from no motion."""
        still = np.eye(template.grid.dimension + 1)
        found: list[Matrix] = []
        for frame, image in enumerate(self.series):
            if self._told(number, frame):
                found.append(still)
            else:
                found.append(realign(template, image, [still, *found[-1:]]).matrix)
        return found

    def _deformable(self, template: Volume, number: int, frame: int) -> Field:
        if self._told(number, frame):
            return Field.zeros(template.grid)
        return register(template, self.series[frame], config=for_rounds(self.config), device=self.device).field

    def _told(self, number: int, frame: int) -> bool:
        """Say which frame comes; whether it is the reference itself."""
        if self.on_frame is not None:
            self.on_frame(number, frame + 1)
        return frame == self.options.reference


def smoothed(values: npt.NDArray[np.floating], options: MotionOptions) -> npt.NDArray[np.floating]:
    """Numbers of all frames (T, …) through the window along the frames; as they are without one."""
    if not options.smooth:
        return values
    mode = "wrap" if options.cyclic else "interp"
    return np.asarray(savgol_filter(values, options.smooth, DEGREE, axis=0, mode=mode))


def measured(reference: Volume, fields: Sequence[Field], *, cyclic: bool) -> tuple[FrameMotion, ...]:
    """What the maps do where the reference shows something."""
    grid = reference.grid
    counts = (content_mask(reference).on(grid).data > 0.5).flatten().numpy()
    counts |= not counts.any()
    points = voxel_points(grid)[:, counts]
    middle = points.mean(1)
    moved = [points + field.mm().double().flatten(1).numpy()[:, counts] for field in fields]
    found = []
    for number, place in enumerate(moved):
        rigid = fit_points("rigid", points.T, place.T)
        rest = place - mapped(rigid, points.T).T
        before = moved[number - 1] if number or cyclic else place
        found.append(
            FrameMotion(
                frame=number,
                shift_mm=tuple(float(v) for v in mapped(rigid, middle[None])[0] - middle),
                rotation_deg=_angles(rigid),
                deformation_mm=float(np.linalg.norm(rest, axis=0).mean()),
                framewise_mm=float(np.linalg.norm(place - before, axis=0).mean()),
            )
        )
    return tuple(found)


def _angles(rigid: Matrix) -> tuple[float, ...]:
    if len(rigid) == 3:
        return (float(np.degrees(np.arctan2(rigid[1, 0], rigid[0, 0]))),)
    return tuple(float(angle) for angle in Rotation.from_matrix(rigid[:3, :3]).as_rotvec(degrees=True))


def _check(series: Sequence[Volume], options: MotionOptions) -> None:
    """Refuse what is no series, or too short for what is asked (ConfigError, GeometryError)."""
    if len(series) < 2:
        raise ConfigError(f"expected two frames or more, got {len(series)}: name a series over time, or more files")
    for number, frame in enumerate(series, start=1):
        if frame.grid != series[0].grid:
            raise GeometryError(
                f"expected all frames on the grid of the first, {series[0].grid.sentence}, got frame {number} on "
                f"{frame.grid.sentence}: resample it, or make a template"
            )
    if options.smooth > len(series):
        raise ConfigError(f"expected a window of at most {len(series)} frames, as the series has, got {options.smooth}")
    if options.reference is not None and options.reference >= len(series):
        raise ConfigError(f"expected a reference that is one of {len(series)} frames, got {options.reference}")
