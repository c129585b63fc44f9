"""The pairs that the phantom offers, each by a name and a few numbers. Knows nothing of files."""

from __future__ import annotations

from typing import get_args

import numpy as np

from semreg.errors import ConfigError
from semreg.phantom import brain, chest, joint, slide
from semreg.phantom.anatomy import make_anatomy
from semreg.phantom.grids import Frames, abdomen_grids, head_grids, joint_grids, picture_grids, rotation
from semreg.phantom.pair import PhantomPair, Recipe, pair_of


def make_pair(
    *,
    size: int = 120,
    seed: int = 0,
    dimension: int = 3,
    frames: Frames = "oblique",
    displacement_mm: float = 11.0,
    landmarks: int = 250,
) -> PhantomPair:
    """A CT-like fixed and an MR-like moving image of about ``size`` voxels an axis, in 2-D or 3-D.

    ``frames``: ``oblique`` grids differ in size, spacing, origin, direction and in what they show; ``isotropic`` is one
    plain grid for both. ``displacement_mm`` is the largest in the body; it is the same
    deformation on all grids. Raises ConfigError.
    """
    if dimension not in (2, 3) or size < 8:
        raise ConfigError(
            f"expected a phantom in 2-D or 3-D of 8 voxels or more, got {dimension}-D and {size}; choose others"
        )
    if frames not in get_args(Frames):
        raise ConfigError(f"expected frames of {' or '.join(get_args(Frames))}, got {frames}; choose one of them")
    recipe = Recipe(("ct", "mr"), displacement_mm, landmarks, seed)
    return pair_of(make_anatomy(seed), abdomen_grids(frames, size, dimension), recipe)


def make_brains(
    *,
    size: int = 96,
    seed: int = 0,
    contrasts: tuple[str, str] = ("t1", "t1"),
    displacement_mm: float = 9.0,
    landmarks: int = 250,
) -> PhantomPair:
    """Two heads in MR of about ``size`` voxels an axis, with labels; the second is the first one deformed.

    ``contrasts`` of the fixed and of the moving image: ``t1`` or ``t2``. ``displacement_mm`` is the largest in the
    brain. Two people differ in more than a smooth deformation: expect less of a pair of real heads. Raises ConfigError.
    """
    if size < 8 or not set(contrasts) <= {"t1", "t2"}:
        raise ConfigError(
            f"expected heads of 8 voxels or more in t1 or t2, got {size} and {' and '.join(contrasts)}; choose others"
        )
    grids = head_grids(size, brain.CENTRE_MM)
    return pair_of(brain.make_brain(seed), grids, Recipe(contrasts, displacement_mm, landmarks, seed))


def make_slides(
    *, size: int = 256, seed: int = 0, degrees: float = 24.0, displacement_mm: float = 8.0, landmarks: int = 120
) -> PhantomPair:
    """Two pictures of one slice of tissue in two stains, ``size`` pixels high, 2-D, values from 0 to 255.

    A pixel is 256 / ``size`` mm: 1 mm by default, as of a picture that says nothing of it. The moving slice lies on its
    glass ``degrees`` further round and is deformed by up to ``displacement_mm``. Raises ConfigError.
    """
    if size < 8:
        raise ConfigError(f"expected slides of 8 pixels or more, got {size}; choose another size")
    grids = picture_grids(size)
    middle = np.array(grids[1].size_xyz) * grids[1].spacing_xyz / 2
    motion = np.eye(3)
    motion[:2, :2] = rotation((0, 0, 1), degrees)[:2, :2]
    motion[:2, 2] = middle - motion[:2, :2] @ slide.CENTRE
    recipe = Recipe(("eosin", "brown"), displacement_mm, landmarks, seed, motion)
    return pair_of(slide.make_slide(seed), grids, recipe)


def make_bones(
    *,
    size: int = 64,
    seed: int = 0,
    contrasts: tuple[str, str] = ("ct", "ct"),
    displacement_mm: float = 5.0,
    landmarks: int = 250,
) -> PhantomPair:
    """A joint of about ``size`` voxels an axis: three bones move rigidly, each its own way, in soft tissue.

    ``contrasts`` of the fixed and of the moving image: ``ct`` or ``mr``. ``displacement_mm`` is the largest of the soft
    tissue far from the bones; ``joint.bone_motion`` says how each bone moves. Raises ConfigError.
    """
    if size < 8 or not set(contrasts) <= {"ct", "mr"}:
        raise ConfigError(
            f"expected a joint of 8 voxels or more in ct or mr, got {size} and {' and '.join(contrasts)}; choose others"
        )
    grids = joint_grids(size, joint.CENTRE_MM)
    return pair_of(joint.make_joint(seed), grids, Recipe(contrasts, displacement_mm, landmarks, seed), joint.JointMap)


def make_chests(
    *,
    size: int = 64,
    seed: int = 0,
    contrasts: tuple[str, str] = ("ct", "ct"),
    slide_mm: float = 12.0,
    displacement_mm: float = 5.0,
    landmarks: int = 250,
) -> PhantomPair:
    """A chest of about ``size`` voxels an axis, whose inner body slides along the wall around it by ``slide_mm``.

    ``contrasts`` of the fixed and of the moving image: ``ct`` or ``mr``. ``displacement_mm`` is the largest of the
    smooth map that then moves the inner body and its wall alike. Label 1 is the inner body. Raises ConfigError.
    """
    if size < 8 or not set(contrasts) <= {"ct", "mr"}:
        raise ConfigError(
            f"expected a chest of 8 voxels or more in ct or mr, got {size} and {' and '.join(contrasts)}; choose others"
        )
    motion = chest.sliding_motion(slide_mm, seed)
    recipe = Recipe(contrasts, displacement_mm, landmarks, seed)
    grids = joint_grids(size, chest.CENTRE_MM)
    return pair_of(chest.make_chest(seed), grids, recipe, lambda soft: chest.ChestMap(soft, motion))
