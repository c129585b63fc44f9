"""The flags of further contrasts of one pair, and what they stand for. Reads nothing at its top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

from semreg.cli.panels import INPUT, MODELS, flag
from semreg.errors import ConfigError
from semreg.io.result_folder import warped_contrast

if TYPE_CHECKING:
    from semreg.io.bridge import LoadedImage
    from semreg.registration.contrasts import Contrast

T = TypeVar("T")
NONE = "none"
"""In place of a mask: it has none of its own."""


@dataclass(frozen=True, kw_only=True)
class ContrastFlags:
    """Further images of the same two scenes; the n-th fixed one belongs to the n-th moving one."""

    fixed_contrast: Annotated[
        tuple[Path, ...],
        flag("Another contrast in the fixed image's space, T2 beside T1; repeatable.", "FILE", panel=INPUT),
    ] = ()
    moving_contrast: Annotated[
        tuple[Path, ...], flag("The same of the moving image, one for each.", "FILE", panel=INPUT)
    ] = ()
    fixed_contrast_mask: Annotated[
        tuple[str, ...], flag("Its mask, or none: that of the fixed image.", "FILE", panel=INPUT)
    ] = ()
    moving_contrast_mask: Annotated[tuple[str, ...], flag("The same of the moving image.", "FILE", panel=INPUT)] = ()
    contrast_model: Annotated[
        tuple[str, ...], flag("What a contrast is compared by, if not as the first pair.", "FILE|NAME", panel=MODELS)
    ] = ()
    contrast_weight: Annotated[
        tuple[float, ...], flag("How much it counts; the first pair counts 1.", "X", panel=MODELS)
    ] = ()
    by_channel: Annotated[
        bool, flag("Compare colours, vectors or frames channel by channel.", None, "--by-channel", panel=INPUT)
    ] = False

    def check(self) -> None:
        """Refuse numbers of values that do not fit (ConfigError)."""
        count = len(self.fixed_contrast)
        if self.by_channel and count:
            raise ConfigError(
                "expected --by-channel or --fixed-contrast and --moving-contrast, got both: leave one out"
            )
        if len(self.moving_contrast) != count:
            raise ConfigError(
                f"expected as many --moving-contrast as --fixed-contrast, got {len(self.moving_contrast)} and {count}: "
                "the n-th ones belong together"
            )
        for name, values in self._dealt.items():
            if len(values) not in ((0, 1, count) if count else (0,)):
                raise ConfigError(
                    f"expected --{name} once, or once for each of {count} contrasts, got it {len(values)} times: "
                    "leave some out, or give more of --fixed-contrast and --moving-contrast"
                )

    @property
    def _dealt(self) -> Mapping[str, Sequence[str | float]]:
        """What is given once for all contrasts or once for each, by the name of the flag."""
        return {
            "fixed-contrast-mask": self.fixed_contrast_mask,
            "moving-contrast-mask": self.moving_contrast_mask,
            "contrast-model": self.contrast_model,
            "contrast-weight": self.contrast_weight,
        }

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that are read, by their role."""
        count = len(self.fixed_contrast)
        sides = {"fixed": (self.fixed_contrast, self.fixed_contrast_mask)}
        sides["moving"] = (self.moving_contrast, self.moving_contrast_mask)
        found: dict[str, Path] = {}
        for side, (images, masks) in sides.items():
            found |= {f"{side}_contrast_{n}": path for n, path in enumerate(images, 1)}
            each = _each(masks, count, NONE)
            found |= {f"{side}_contrast_{n}_mask": Path(text) for n, text in enumerate(each, 1) if text != NONE}
        return found

    @property
    def images(self) -> list[str]:
        """The names of the images that are written for them."""
        return [warped_contrast(number) for number, _ in enumerate(self.fixed_contrast, 1)]


def read_contrasts(flags: ContrastFlags, images: Mapping[str, LoadedImage], *, private: bool) -> list[Contrast]:
    """What the flags name; a warning says where a contrast is of another patient than the first pair."""
    if not flags.fixed_contrast:
        return []
    from semreg.features.trial import try_model
    from semreg.io.files import in_one_unit, read_image, read_mask
    from semreg.io.patients import say_if_two
    from semreg.registration.contrasts import Contrast

    for model in dict.fromkeys(flags.contrast_model):
        try_model(model, ())
    inputs, count = flags.inputs, len(flags.fixed_contrast)
    roles = [f"{side}_contrast_{n}" for n in range(1, count + 1) for side in ("fixed", "moving")]
    read = in_one_unit({**images, **{role: read_image(inputs[role]) for role in roles}})
    say_if_two({role.replace("_", " "): image.origin for role, image in read.items()}, private=private)
    masks = {role: None if f"{role}_mask" not in inputs else read_mask(inputs[f"{role}_mask"]) for role in roles}
    models: list[str | None] = [*_each(flags.contrast_model, count, None)]
    weights = _each(flags.contrast_weight, count, 1.0)
    return [
        Contrast(
            read[f"fixed_contrast_{n}"], read[f"moving_contrast_{n}"], model=model, weight=weight,
            fixed_mask=masks[f"fixed_contrast_{n}"], moving_mask=masks[f"moving_contrast_{n}"],
        )
        for n, (model, weight) in enumerate(zip(models, weights, strict=True), 1)
    ]  # fmt: skip


def pixel_types(contrasts: Sequence[Contrast]) -> list[str]:
    """How the voxels of the moving images are stored."""
    return [cast("LoadedImage", contrast.moving).pixel_type for contrast in contrasts]


def described(contrasts: Sequence[Contrast]) -> Iterator[str]:
    """What is compared beside the first pair, a sentence each."""
    for number, contrast in enumerate(contrasts, 1):
        by = "as the first pair" if contrast.model is None else f"by {contrast.model}"
        yield f"contrast {number} is compared {by}, with the weight {contrast.weight:.3g}"


def _each(values: Sequence[T], count: int, usual: T) -> Sequence[T]:
    """One value a contrast."""
    return values if len(values) == count else [*(values or [usual])] * count
