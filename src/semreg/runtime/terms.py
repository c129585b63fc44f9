"""What other tools call things, and what it is here: advice for who types their words. Knows no setting by type."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LEVELS = "the levels follow from the image: features.pooling, coarse.levels and refine.levels set them"
SMOOTHNESS = "refine.diffusion weighs the smoothness, refine.control_mm is the distance of control points in mm"
MASKS = "masks: --fixed-mask and --moving-mask"
IMAGES = "the images: semreg register FIXED MOVING, without flags"
PARAMETERS = "a parameter file of elastix: --config FILE in TOML; semreg presets show NAME prints one"
DEFORMATION = "semreg register deforms by default; --align alone says which linear map comes first"
TERMS = {
    "shrinkfactors": f"shrink factors of ANTs: {LEVELS}",
    "shrinkfactor": f"shrink factors of ANTs: {LEVELS}",
    "smoothingsigmas": f"smoothing sigmas of ANTs: features are smoothed by their pooling, and {LEVELS}",
    "imagepyramidschedule": f"the pyramid of elastix: {LEVELS}",
    "numberofresolutions": f"resolutions of elastix: {LEVELS}",
    "subsamp": f"subsampling of FNIRT: {LEVELS}",
    "gridspacing": "grid spacing of elastix: refine.control_mm, the distance of control points in mm",
    "finalgridspacinginphysicalunits": "grid spacing of elastix: refine.control_mm, in mm",
    "finalgridspacing": "grid spacing of elastix: refine.control_mm, in mm",
    "warpres": "the warp resolution of FNIRT: refine.control_mm, the distance of control points in mm",
    "splinedistance": "the spline distance of ANTs: refine.control_mm, the distance of control points in mm",
    "convergence": "iterations of ANTs: refine.iterations and refine.tolerance",
    "maximumnumberofiterations": "iterations of elastix: refine.iterations",
    "metric": "the metric: --model says which features are compared, --distance how",
    "cost": "the cost function of FLIRT: --model says which features are compared, --distance how",
    "mi": "mutual information: semreg compares features (--model mind) and needs none for two kinds of images",
    "mattes": "mutual information: semreg compares features (--model mind) and needs none for two kinds of images",
    "syn": f"SyN of ANTs: {DEFORMATION}, and is diffeomorphic",
    "bspline": f"B-splines: {DEFORMATION}, with B-splines",
    "nonrigid": f"a deformation: {DEFORMATION}",
    "deformable": f"a deformation: {DEFORMATION}",
    "t": f"-t of ANTs, the transform: --align for linear ones; SyN: {DEFORMATION}",
    "dof": "degrees of freedom of FLIRT: --align rigid has 6, similarity 7, affine 12",
    "euler": "Euler transform of elastix: --align rigid",
    "regularization": SMOOTHNESS,
    "regularisation": SMOOTHNESS,
    "lambda": SMOOTHNESS,
    "bendingenergy": SMOOTHNESS,
    "gradientstep": "the gradient step of ANTs: steps follow from the curvature; refine.step_mm bounds them",
    "stepsize": "the step size: steps follow from the curvature; refine.step_mm bounds them",
    "samplingpercentage": "sampling: refine.sampling, the share of the voxels in each step of refine.optimizer=adam",
    "numberofspatialsamples": "samples of elastix: refine.sampling, a share, with refine.optimizer=adam",
    "restrictdeformation": "0x1x0 of ANTs: --restrict-axes y, the axes of the fixed image along which points move",
    "initialtransform": "a transform to start from: --initial",
    "initialmovingtransform": "a transform to start from: --initial",
    "init": "a transform to start from: --initial",
    "in": "the moving image of FLIRT: semreg register FIXED MOVING, without flags",
    "ref": "the fixed image of FLIRT: semreg register FIXED MOVING, without flags; of apply: --reference",
    "out": "the output: -o FOLDER",
    "omat": "the matrix of FLIRT: transform.h5 in the folder; semreg convert writes it for FSL's and other tools",
    "winsorizeimageintensities": "outliers of intensity: intensities.percentiles and intensities.winsorise",
    "histogrammatching": "histogram matching: not needed, features do not see the scale of intensities",
    "usehistogrammatching": "histogram matching: not needed, features do not see the scale of intensities",
    "masks": MASKS,
    "mask": MASKS,
    "x": MASKS,
    "fmask": "the fixed mask: --fixed-mask",
    "mmask": "the moving mask: --moving-mask",
    "dimensionality": "the dimension follows from the images",
    "parameters": PARAMETERS,
    "p": PARAMETERS,
    "f": IMAGES,
    "fixed": IMAGES,
    "fixedimage": IMAGES,
    "moving": IMAGES,
    "movingimage": IMAGES,
    "gpu": "a GPU: --device cuda; auto, the default, takes one where there is one",
    "cuda": "a GPU: --device cuda; auto, the default, takes one where there is one",
    "transform": f"the transform: --align for linear ones; else {DEFORMATION}",
    "levels": f"levels: {LEVELS}",
    "iterations": "iterations: --set refine.iterations=N",
    "interpolation": "the warped image is read linearly; semreg apply has --interpolation for others",
}
"""By the word without dashes, dots and underscores, in small letters."""


def advice(word: str) -> str:
    """What the word of another tool is here, a sentence part; empty for a word that is none."""
    plain = re.sub(r"[^a-z]", "", word.lower())
    return TERMS.get(plain, "") or TERMS.get(re.sub(r"[^a-z]", "", word.lower().rpartition(".")[2]), "")


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """The known name that is most like the word, whatever its letters' size and its dashes; empty where none is."""
    names = {name.lower().lstrip("-"): name for name in known}
    found = difflib.get_close_matches(word.lower().lstrip("-"), names, n=1, cutoff=cutoff)
    return names[found[0]] if found else ""
