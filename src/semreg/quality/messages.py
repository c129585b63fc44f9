"""What the gates say, one sentence each. Decides nothing."""

from __future__ import annotations

from semreg.quality.evidence import Evidence

TITLES = {
    "finite": "Finite displacement",
    "missing": "Missing voxels",
    "overlap": "Overlap",
    "folding": "Folded voxels",
    "volume": "Implausible volume change",
    "tears": "Tears",
    "scale": "Scale of the whole",
    "bending": "Bending",
    "match": "Match against chance",
    "gain": "Gain in match",
    "residual": "Remaining displacement",
    "mismatch": "Removable mismatch",
    "unfinished": "Unfinished way",
    "elsewhere": "Better match elsewhere",
    "mirror": "Mirrored image",
    "uncertainty": "Uncertainty",
    "consistency": "Inverse consistency",
    "landmarks": "Landmark error",
    "landmark_p95": "Landmark error, 95th percentile",
    "landmark_maximum": "Largest landmark error",
    "landmark_worse": "Landmarks that got worse",
    "labels": "Overlap of labels",
    "doubts": "Doubts of the alignment",
}

PASSED = {
    "finite": "The displacement has a value everywhere.",
    "missing": "{value:.2g} % of the voxels have no value.",
    "overlap": "The images share {value:.0f} % of the content of the smaller one.",
    "folding": "{value:.2g} % of the voxels are folded.",
    "volume": "{value:.2g} % of the voxels change their volume more than fivefold.",
    "tears": "{value:.2g} % of the voxels are torn from their neighbours.",
    "scale": "The whole is stretched or shrunk by a factor of {value:.2f} at most.",
    "bending": "The deformation reaches {value:.1f} % of the image's diagonal.",
    "match": "The images match {value:.0f} % better than unrelated places would.",
    "gain": "The match rose by {value:.0f} percentage points.",
    "residual": "One more search would move the image by {value:.2g} mm (median).",
    "mismatch": "One more search would take {value:.0f} % of the mismatch away.",
    "unfinished": "One more search would add {value:.0f} % to the displacement or take it back.",
    "elsewhere": "No shift of the whole matches better.",
    "mirror": "The mirrored moving image does not match better.",
    "uncertainty": "The displacement is uncertain by {value:.2g} mm (median).",
    "consistency": "Transform and inverse miss each other by {value:.2g} mm.",
    "landmarks": "The mean landmark error went from {before:.3g} to {after:.3g} mm.",
    "landmark_p95": "The 95th percentile of the landmark errors went from {before:.3g} to {after:.3g} mm.",
    "landmark_maximum": "The largest landmark error went from {before:.3g} to {after:.3g} mm.",
    "landmark_worse": "{value:.2g} % of the landmarks got worse by more than a voxel.",
    "labels": "The mean Dice went from {before:.3f} to {after:.3f}.",
}

STOPPED = {
    "finite": "{value:.2g} % of the displacement vectors are NaN or infinite: the transform cannot be used.",
    "missing": "{value:.0f} % of the voxels of one image have no value: check the file.",
    "overlap": "The images share only {value:.0f} % of the content of the smaller one.",
    "folding": "{value:.2g} % of the voxels are folded: space is turned over there.",
    "volume": "{value:.2g} % of the voxels change their volume more than fivefold, which tissue does not do.",
    "tears": "{value:.2g} % of the voxels are torn from their neighbours.",
    "scale": "The whole is stretched or shrunk by a factor of {value:.2f}: check the voxel sizes of both images.",
    "bending": "The deformation reaches {value:.1f} % of the image's diagonal, more than is plausible.",
    "match": "The images match only {value:.0f} % better than unrelated places: are they of the same body part?",
    "gain": "The images match worse with the transform than without it ({value:.0f} percentage points).",
    "residual": "One more search would move the image by another {value:.2g} mm (median): it is not in place.",
    "mismatch": "One more search would take {value:.0f} % of the mismatch away: the image is not in place.",
    "unfinished": "One more search would {way} {value:.0f} % of the displacement.",
    "elsewhere": "A shift of {shift:.0f} mm of the whole matches better ({value:.0f} % of the match here).",
    "mirror": "The moving image matches better mirrored ({value:.0f} %): is its axis {axis} flipped?",
    "uncertainty": "The displacement is uncertain by {value:.2g} mm (median).",
    "consistency": "Transform and inverse miss each other by {value:.2g} mm.",
    "landmarks": "The mean landmark error rose from {before:.3g} to {after:.3g} mm: the transform made it worse.",
    "landmark_p95": "The 95th percentile of the landmark errors rose from {before:.3g} to {after:.3g} mm.",
    "landmark_maximum": "The largest landmark error rose from {before:.3g} to {after:.3g} mm: look at that place.",
    "landmark_worse": "{value:.2g} % of the landmarks got worse by more than a voxel: look at where they are.",
    "labels": "The mean Dice fell from {before:.3f} to {after:.3f}.",
}
NEEDS = {
    "missing": "only the treated images are known",
    "uncertainty": "no uncertainty was estimated",
    "consistency": "no inverse is known",
    "landmarks": "there are no landmarks",
    "landmark_p95": "there are no landmarks",
    "landmark_maximum": "there are no landmarks",
    "landmark_worse": "there are no landmarks",
    "labels": "there are no labels",
    "gain": "without the transform the images do not lie on each other, or nothing can be compared",
    "unfinished": "the transform moves nothing by itself, or nothing can be compared",
}
KNOWN_BESIDE = (
    "uncertainty", "consistency", "landmarks", "landmark_p95", "landmark_maximum", "landmark_worse", "labels",
)  # fmt: skip
"""Gates that need more than the images and the field."""


def title_of(name: str) -> str:
    """The heading of a gate."""
    return TITLES[name]


def sentence_of(
    name: str, level: str | None, value: float | None, evidence: Evidence, sides: tuple[float, float] = (0.0, 0.0)
) -> str:
    """What a gate found, or why nothing was measured; ``sides``: what was before and after, where it speaks of both."""
    if value is None or level is None:
        if name not in KNOWN_BESIDE and evidence.field_missing > 0:
            return "Not measured: the displacement is not finite."
        return f"Not measured: {NEEDS.get(name, 'the images show nothing together that could be compared')}."
    axis = "zyx"[-evidence.dimension :][evidence.mirror_axis] if evidence.mirror_axis is not None else ""
    way = "take back" if (evidence.unfinished or 0) < 0 else "add"
    text = (PASSED if level == "PASS" else STOPPED)[name]
    before, after = sides
    if name in ("landmarks", "landmark_p95", "landmark_maximum") and level == "PASS" and after > before:
        text = f"{text[:-1]}, no more than the limit."
    return text.format(value=value, before=before, after=after, shift=evidence.shift_mm or 0.0, axis=axis, way=way)
