"""Where names and modules of before are now: an old one is answered with the line that takes its place.

Nothing is imported under its old name, so what was moved cannot come back in unseen. Imports nothing.
"""

import sys

_CONFIG = "AlignConfig CoarseConfig FeatureConfig GateConfig IntensityConfig ModelConfig RefineConfig UncertaintyConfig"
_ERRORS = (
    "ConfigError DeviceError DivergedError GeometryError ImageError ModelContractError ModelError ModelNotFoundError "
    "OutputError"
)
NAMES = {
    name: home
    for home, names in (
        ("config", _CONFIG),
        ("errors", _ERRORS),
        ("core.consistency", "Inverse inverse_consistency invert"),
        ("core.fields", "Layer"),
        ("features.contract", "Normalisation"),
        ("io.bridge", "LoadedImage"),
        ("io.files", "OutputFolder"),
        ("quality", "Evaluation EvaluationConfig Evidence Verdict"),
        ("report", "Case"),
        ("runtime.events", "Step"),
        ("registration.pipeline", "registration.register"),
        ("registration.result", "registration.Registration"),
    )
    for name in names.split()
}
"""Old public name → the module that has it."""

MODULES = {
    "alignment": "registration.alignment",
    "automatic": "registration.plan",
    "automatic.look": "registration.plan.image_facts",
    "automatic.decide": "registration.plan.plan",
    "body": "preprocess.body",
    "catalogue": "features.catalogue",
    "cli.proof": "cli.report_output",
    "cohort": "batch",
    "cohort.attempt": "batch.worker",
    "consistency": "core.consistency",
    "demo": "phantom.demo",
    "dense": "registration.dense",
    "dense.bspline": "transforms.bspline",
    "dense.drawn": "registration.dense.subsampled",
    "dense.match": "registration.dense.data_term",
    "dense.problem": "registration.dense.objective",
    "devices": "runtime.devices",
    "dicom": "io.dicom",
    "dicom_frames": "io.dicom_frames",
    "dicom_segments": "io.dicom_segments",
    "digests": "io.digests",
    "environment": "cli.environment",
    "evaluation": "quality",
    "evaluation.likeness": "quality.image_similarity",
    "evaluation.words": "quality.summary",
    "events": "runtime.events",
    "features.tally": "features.tensor_memory",
    "fields": "core.fields",
    "files": "io.files",
    "gates": "quality",
    "gates.sentences": "quality.checks",
    "gates.sight": "quality.coarse_view",
    "geometry": "core.geometry",
    "hdf5": "io.hdf5",
    "headers": "io.headers",
    "image_files": "io.image_files",
    "images": "io.images",
    "inference": "features.inference",
    "inspection": "features.inspection",
    "intake": "preprocess.image_pair",
    "intensities": "preprocess.intensities",
    "inversion": "core.inversion",
    "itk_api": "itk.api",
    "itk_bridge": "io.bridge",
    "itk_tensor": "itk.tensor",
    "matching": "registration.matching",
    "memory": "runtime.memory",
    "modality": "preprocess.modality",
    "models": "features.models",
    "nifti": "io.nifti",
    "nifti_header": "io.nifti_header",
    "parametric": "registration.parametric",
    "parametric.maps": "transforms.maps",
    "pictures": "io.pictures",
    "planning": "registration.plan",
    "preparation": "preprocess.preparation",
    "record": "io.records",
    "regularity": "core.regularity",
    "reports": "report",
    "sampled": "itk.sampled",
    "sampling": "core.sampling",
    "scattered": "core.scattered",
    "segments": "io.segments",
    "similarity": "distances",
    "similarity.candidates": "distances.derived",
    "stack": "io.stack",
    "staging": "io.atomic_output",
    "stored": "io.stored",
    "terminal": "runtime.terminal",
    "tiles": "features.tiles",
    "uncertainty": "registration.uncertainty",
}
"""Old module → where it is; what was in a package has moved with it, but for what has a line of its own."""


def sentence(name: str) -> str | None:
    """What takes the place of ``semreg.…``; None for what has never been."""
    old = name.removeprefix("semreg.")
    if old in NAMES:
        return f"{name} has moved: from semreg.{NAMES[old]} import {old.rpartition('.')[2]}"
    new = new_module(old)
    return None if new == old else f"{name} has moved: import semreg.{new}"


def new_module(old: str) -> str:
    """Where the module that was ``semreg.old`` is; the same where it has not moved."""
    start, rest = old, ""
    while start and start not in MODULES:
        start, _, last = start.rpartition(".")
        rest = f".{last}{rest}"
    return MODULES[start] + rest if start else old


class _Moved:
    """Asked last of all, for modules that nobody else has found."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004 - Python's protocol
        """ModuleNotFoundError where ``name`` is an old one."""
        said = sentence(name) if name.startswith("semreg.") else None
        if said is not None:
            raise ModuleNotFoundError(said)  # without its name, or ``from semreg import …`` would hide what it says


def explain_old_names() -> None:
    """Let Python say, where it finds no module of an old name, where that is now."""
    if _Moved not in sys.meta_path:
        sys.meta_path.append(_Moved)
