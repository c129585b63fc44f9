"""Parameter files of elastix as settings: the transform, the resolutions, and the metric IMPACT. Computes nothing.

What has a meaning here becomes a setting; each entry that has none is named with the reason. Of the entries of IMPACT
both forms are read: one set of values for each resolution (``ImpactModelsPath0``), and the older one without a number,
with a word a resolution. The finest resolution counts: all resolutions here compare the same features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from semreg.config import ModelConfig, RegistrationConfig
from semreg.errors import ConfigError
from semreg.itk.api import checks
from semreg.itk.api.impact_model import ImpactModelConfiguration
from semreg.itk.api.model_configuration import Comparison, Layers, entries
from semreg.runtime.settings import override
from semreg.transforms.formats.elastix import Parameters, parse

ALIGNMENTS = {
    "TranslationTransform": "translation", "EulerTransform": "rigid", "SimilarityTransform": "similarity",
    "AffineTransform": "affine", "AffineDTITransform": "affine",
}  # fmt: skip
"""Linear transforms of elastix, and ``align.transform``."""
SPLINES = ("BSplineTransform", "RecursiveBSplineTransform", "MultiBSplineTransformWithNormal")
METRIC = "Impact"
MOST_LEVELS = 6

OTHER = {
    r"(Fixed|Moving)?ImagePyramid(\w*Schedule)?|(Fixed|Moving)ImagePyramid\w*": "each resolution is twice as fine as "
    "the one before",
    r"GridSpacingSchedule": "control points are twice as near on each resolution",
    r"Optimizer|ASGD\w*|SP_\w+|SigmoidInitialTime|UseAdaptiveStepSizes|AutomaticParameterEstimation|MaximumStepLength|"
    r"MaximumStepLengthRatio|UseConstantStep|NumberOfGradientMeasurements|NumberOfJacobianMeasurements": "the descent "
    "is quasi-Newton: --set refine.optimizer=adam is the other one",
    r"ImageSampler|NumberOfSpatialSamples|NewSamplesEveryIteration|NumberOfSamplesForExactGradient|SampleRegionSize|"
    r"UseRandomSampleRegion|MaximumNumberOfSamplingAttempts|RequiredRatioOfValidSamples|SampleGridSpacing|"
    r"CheckNumberOfSamples": "all samples are compared",
    r"(Bspline|BSpline)\w*Order|Interpolator|ResampleInterpolator|FinalBSplineInterpolationOrder|Resampler": "images "
    "are interpolated linearly, the spline is cubic",
    r"Registration|HowToCombineTransforms|InitialTransformParameters?FileName|AutomaticTransformInitialization\w*|"
    r"AutomaticScalesEstimation|Scales|CenterOfRotation\w*": "the alignment finds its start, the deformation "
    "starts from it",
    r"ErodeMask|ErodeFixedMask|ErodeMovingMask": "masks count as they are",
    r"(Fixed|Moving)InternalImagePixelType|(Fixed|Moving)ImageDimension|UseDirectionCosines|UseFastAndLowMemoryVersion|"
    r"MaxBandCovSize|NumberOfBandStructureSamples|UseMultiThreadingForMetrics|UseCyclicTransform|"
    r"PassiveEdgeWidth|ShowExactMetricValue|NumberOfHistogramBins|NumberOf(Fixed|Moving)HistogramBins": "it is not "
    "needed here",
    r"Write\w+|ResultImage\w+|CompressResultImage|FixedKernelBSplineOrder|MovingKernelBSplineOrder": "what is written "
    "say the flags of semreg register",
    r"Impact(Fixed|Moving)?GPU\d*|Impact(Fixed|Moving)?Device\d*": "--device says where it is computed",
    r"ImpactWriteFeatureMaps\d*|ImpactFeatureMapsPath\d*": "semreg features writes them",
}
"""Entries without a meaning here, by patterns of their names, and why."""
READ = re.compile(
    r"Transform|NumberOfResolutions|MaximumNumberOfIterations|FinalGridSpacingIn\w+|RandomSeed|DefaultPixelValue|"
    r"Metric(\d+Weight)?|Impact(Fixed|Moving)?(ModelsPath|Dimension|NumberOfChannels|PatchSize|VoxelSize|LayersMask|"
    r"SubsetFeatures|PCA|Distance|LayersWeight|UseMixedPrecision)\d*|ImpactMode|ImpactFeaturesMapUpdateInterval\d*"
)
"""Entries that are read, or spoken of where they are."""


class Translated(NamedTuple):
    """The settings of parameter files, and what could not be said in them, a sentence each."""

    config: RegistrationConfig
    notes: tuple[str, ...]


def read_parameters(paths: Sequence[Path], config: RegistrationConfig) -> Translated:
    """Parameter files of elastix in the order in which it is given them, over ``config``.

    Args:
        paths: files as for ``elastix -p``, linear ones first.
        config: what holds where they say nothing.

    Returns:
        The settings, and a sentence for each entry that has no meaning here.

    Raises:
        ConfigError: for a file that is none, a transform that is not known, and values that cannot be.
    """
    notes: list[str] = []
    linear, spline = "none", None
    for path in paths:
        parameters = parse(path, ConfigError)
        kind = _word(parameters, "Transform", path)
        if kind in ALIGNMENTS:
            linear = ALIGNMENTS[kind]
            notes += [f"{path.name}: the alignment chooses its resolutions and compares MIND, whatever the file says"]
        elif kind in SPLINES:
            spline = (path, parameters)
        else:
            known = ", ".join([*ALIGNMENTS, *SPLINES])
            raise ConfigError(f"expected a Transform of {known} in {path}, got {kind}: leave this file out")
        if "TransformParameters" in parameters:
            raise ConfigError(
                f"expected a file that says how to register, got {path}, a result: --initial {path} starts from it"
            )
    config = override(config, f"align.transform={linear}")
    if spline is None:
        off = ("coarse.enabled=false", "refine.enabled=false")
        notes.append("no file has a B-spline: there is no deformation, and semreg align writes the linear map alone")
        for assignment in off:
            config = override(config, assignment)
        return Translated(config, tuple(notes))
    path, parameters = spline
    for assignment in (*_layout(parameters, path, notes), *_metric(parameters, path, notes)):
        config = override(config, assignment)
    models = _models(parameters, path, notes)
    if models:
        config = replace(config, models=models)
    notes += [f"{path.name}: {name} has no meaning here, {why}" for name, why in _without_meaning(parameters)]
    return Translated(config, tuple(notes))


def _layout(parameters: Parameters, path: Path, notes: list[str]) -> Iterator[str]:
    """Resolutions, steps, control points, seed and background as settings."""
    levels = int(_numbers(parameters, "NumberOfResolutions", path, [3])[0])
    if levels > MOST_LEVELS:
        notes.append(f"{path.name}: NumberOfResolutions {levels} becomes {MOST_LEVELS}, as many as there may be")
    yield f"refine.levels={min(levels, MOST_LEVELS)}"
    steps = _numbers(parameters, "MaximumNumberOfIterations", path, [])
    if steps:
        yield f"refine.iterations={int(max(steps))}"
        notes.append(
            f"{path.name}: MaximumNumberOfIterations {int(max(steps))} is the most on each resolution; "
            "one ends where the objective stops falling"
        )
    spacing = _numbers(parameters, "FinalGridSpacingInPhysicalUnits", path, [])
    if spacing:
        yield f"refine.control_mm={min(spacing)}"
        if min(spacing) != max(spacing):
            notes.append(f"{path.name}: control points are {min(spacing):g} mm apart along all axes, the least of it")
    if "FinalGridSpacingInVoxels" in parameters:
        notes.append(f"{path.name}: FinalGridSpacingInVoxels is left out, give it as refine.control_mm in mm")
    for name, setting in (("RandomSeed", "seed"), ("DefaultPixelValue", "background")):
        for value in _numbers(parameters, name, path, [])[:1]:
            yield f"{setting}={int(value) if setting == 'seed' else value}"


def _metric(parameters: Parameters, path: Path, notes: list[str]) -> Iterator[str]:
    """How features are used as settings; what is said of other metrics."""
    if _uses_impact(parameters):
        jacobian = (_of_level(parameters, "ImpactMode") or ["Static"])[-1].lower() == "jacobian"
        yield f"refine.mode={'jacobian' if jacobian else 'static'}"
        name = "ImpactFeaturesMapUpdateInterval"
        every = int(_floats(_each(parameters, name, 1, "-1"), name, path)[0])
        if every > 0 and not jacobian:
            yield f"refine.update_every={every}"
    others = [name for name in parameters.get("Metric", []) if name != METRIC]
    if "TransformBendingEnergyPenalty" in others:
        notes.append(f"{path.name}: TransformBendingEnergyPenalty is left out, refine.diffusion weighs the regularity")
    others = [name for name in others if name != "TransformBendingEnergyPenalty"]
    if others:
        beside = "left out" if _uses_impact(parameters) else "not here: the models of the settings are compared"
        notes.append(f"{path.name}: the metric {', '.join(others)} is {beside}")


def _uses_impact(parameters: Parameters) -> bool:
    return METRIC in parameters.get("Metric", [])


def _models(parameters: Parameters, path: Path, notes: list[str]) -> tuple[ModelConfig, ...]:
    """The models of the metric IMPACT at the finest resolution; none without it."""
    if not _uses_impact(parameters):
        return ()
    found = {side: _configurations(parameters, side, path) for side in ("Fixed", "Moving")}
    levels = {int(match[1]) for name in parameters if (match := re.fullmatch(r"Impact\w*?ModelsPath(\d+)", name))}
    several = len(levels) > 1 or len(parameters.get("ImpactModelsPath", [])) > 1
    if several:
        notes.append(f"{path.name}: the models of the finest resolution are compared on all of them")
    if len(found["Fixed"]) != len(found["Moving"]):
        raise ConfigError(
            f"expected as many ImpactFixedModelsPath as ImpactMovingModelsPath in {path}, got {len(found['Fixed'])} "
            f"and {len(found['Moving'])}"
        )
    options = Comparison(dimension=int(_word(parameters, "FixedImageDimension", path, "3")))
    counts = [len(near.layers or (0,)) for near in found["Fixed"]]
    total = sum(counts)
    names = {name.lower(): name for name in checks.distances().values()}
    distances = [names.get(word.lower(), word) for word in _each(parameters, "ImpactDistance", total, "L2")]
    unknown = [word for word in distances if word not in names.values()]
    if unknown:
        raise ConfigError(f"expected ImpactDistance of {', '.join(names.values())} in {path}, got {unknown[0]}")
    weights = _floats(_each(parameters, "ImpactLayersWeight", total, "1"), "ImpactLayersWeight", path)
    subsets = _floats(_each(parameters, "ImpactSubsetFeatures", total, "0"), "ImpactSubsetFeatures", path)
    kept = _floats(_each(parameters, "ImpactPCA", len(counts), "0"), "ImpactPCA", path)
    result: list[ModelConfig] = []
    for number, (near, far) in enumerate(zip(found["Fixed"], found["Moving"], strict=True)):
        part = slice(sum(counts[:number]), sum(counts[: number + 1]))
        layers = Layers(
            tuple(distances[part]), tuple(weights[part]), tuple(map(int, subsets[part])), (), int(kept[number])
        )
        result += entries(near.for_images(), far.for_images(), layers, options)
    return tuple(result)


def _configurations(parameters: Parameters, side: str, path: Path) -> list[ImpactModelConfiguration]:
    """The models of one image."""
    models = _of_level(parameters, "ImpactModelsPath", side)
    if not models:
        raise ConfigError(f"expected ImpactModelsPath with the metric Impact in {path}, got none: name the model")
    count = len(models)
    said = _floats(_each(parameters, "ImpactDimension", count, "3", side), "ImpactDimension", path)
    dimensions = [int(value) for value in said]
    axes = sum(dimensions)
    sizes = {
        name: _floats(_each(parameters, name, axes, "0", side), name, path)
        for name in ("ImpactPatchSize", "ImpactVoxelSize")
    }
    channels = _floats(_each(parameters, "ImpactNumberOfChannels", count, "1", side), "ImpactNumberOfChannels", path)
    masks = _each(parameters, "ImpactLayersMask", count, "1", side)
    mixed = (_of_level(parameters, "ImpactUseMixedPrecision", side) or ["false"])[-1] == "true"
    found = []
    for number, model in enumerate(models):
        part = slice(sum(dimensions[:number]), sum(dimensions[: number + 1]))
        found.append(
            ImpactModelConfiguration(
                _model_file(model, path), dimensions[number], int(channels[number]),
                [int(v) for v in sizes["ImpactPatchSize"][part]], sizes["ImpactVoxelSize"][part], (),
                [letter == "1" for letter in masks[number]], mixed,
            )
        )  # fmt: skip
    return found


def _model_file(model: str, path: Path) -> str:
    """A model as it is named, or else of that name beside the parameter file."""
    beside = path.parent / model
    return str(beside) if not Path(model).is_file() and beside.is_file() else model


def _of_level(parameters: Parameters, name: str, side: str = "") -> list[str]:
    """The words of an entry at the finest resolution, for one image where it is said for that alone."""
    for stem in dict.fromkeys((name.replace("Impact", f"Impact{side}", 1), name)):
        numbered = {int(m[1]): m.string for key in parameters if (m := re.fullmatch(rf"{stem}(\d+)", key))}
        if numbered:
            return [word for value in parameters[numbered[max(numbered)]] for word in _words(value)]
        if stem in parameters:
            values = parameters[stem]
            last = values[-1:] if name in ("ImpactModelsPath", "ImpactMode") else values
            return [word for value in last for word in _words(value)]
    return []


def _words(value: str) -> list[str]:
    """``11*11*11`` and ``"a b"`` are several."""
    numeric = re.fullmatch(r"[\d.*\s]+", value) is not None
    return value.replace("*", " ").split() if numeric else value.split()


def _each(parameters: Parameters, name: str, count: int, usual: str, side: str = "") -> list[str]:
    """``count`` words of an entry, those of the finest resolution; fewer than that: the first for all."""
    words = _of_level(parameters, name, side) or [usual]
    return words[-count:] if len(words) >= count else words[:1] * count


def _floats(words: Sequence[str], name: str, path: Path) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"expected numbers as ({name} ...) in {path}, got {' '.join(words)[:60]}")
    return values


def _numbers(parameters: Parameters, name: str, path: Path, usual: list[float]) -> list[float]:
    return _floats(parameters[name], name, path) if parameters.get(name) else usual


def _word(parameters: Mapping[str, list[str]], name: str, path: Path, usual: str | None = None) -> str:
    if parameters.get(name):
        return parameters[name][0]
    if usual is not None:
        return usual
    raise ConfigError(f"expected a parameter file of elastix with a line ({name} ...), got {path}: there is none")


def _without_meaning(parameters: Parameters) -> Iterator[tuple[str, str]]:
    """Entries that say nothing here, and why."""
    for name in parameters:
        if READ.fullmatch(name):
            continue
        reasons = (why for pattern, why in OTHER.items() if re.fullmatch(pattern, name))
        yield name, next(reasons, "it is not known")
