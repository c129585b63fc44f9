"""semreg registers medical images in feature space, and runs the networks that the features come from.

The public names are imported when they are first used, so that ``import semreg`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semreg.config import AlignConfig as AlignConfig
    from semreg.config import CoarseConfig as CoarseConfig
    from semreg.config import FeatureConfig as FeatureConfig
    from semreg.config import GateConfig as GateConfig
    from semreg.config import IntensityConfig as IntensityConfig
    from semreg.config import ModelConfig as ModelConfig
    from semreg.config import RefineConfig as RefineConfig
    from semreg.config import RegistrationConfig as RegistrationConfig
    from semreg.config import UncertaintyConfig as UncertaintyConfig
    from semreg.core.consistency import Inverse as Inverse
    from semreg.core.consistency import inverse_consistency as inverse_consistency
    from semreg.core.consistency import invert as invert
    from semreg.core.fields import Field as Field
    from semreg.core.fields import Layer as Layer
    from semreg.core.fields import Volume as Volume
    from semreg.core.fields import warp as warp
    from semreg.core.geometry import Grid as Grid
    from semreg.errors import ConfigError as ConfigError
    from semreg.errors import DeviceError as DeviceError
    from semreg.errors import DivergedError as DivergedError
    from semreg.errors import GeometryError as GeometryError
    from semreg.errors import ImageError as ImageError
    from semreg.errors import ModelContractError as ModelContractError
    from semreg.errors import ModelError as ModelError
    from semreg.errors import ModelNotFoundError as ModelNotFoundError
    from semreg.errors import OutputError as OutputError
    from semreg.errors import SemregError as SemregError
    from semreg.features.contract import ModelSpec as ModelSpec
    from semreg.features.contract import Normalisation as Normalisation
    from semreg.features.inference import extract as extract
    from semreg.features.inference import infer as infer
    from semreg.features.networks import load_network as load_network
    from semreg.io.bridge import LoadedImage as LoadedImage
    from semreg.io.bridge import to_volume as to_volume
    from semreg.io.files import OutputFolder as OutputFolder
    from semreg.io.files import read_image as read_image
    from semreg.io.files import read_mask as read_mask
    from semreg.io.files import write_field as write_field
    from semreg.io.files import write_image as write_image
    from semreg.io.files import write_transform as write_transform
    from semreg.itk.tensor import image_to_tensor as image_to_tensor
    from semreg.itk.tensor import tensor_to_image as tensor_to_image
    from semreg.presets import configure as configure
    from semreg.quality import Evaluation as Evaluation
    from semreg.quality import EvaluationConfig as EvaluationConfig
    from semreg.quality import Evidence as Evidence
    from semreg.quality import Verdict as Verdict
    from semreg.quality import collect_evidence as collect_evidence
    from semreg.quality import evaluate as evaluate
    from semreg.quality import judge as judge
    from semreg.registration.alignment import Aligned as Aligned
    from semreg.registration.alignment import align as align
    from semreg.registration.pipeline import plan as plan
    from semreg.registration.pipeline import register as register
    from semreg.registration.result import Registration as Registration
    from semreg.report import Case as Case
    from semreg.report import write_figures as write_figures
    from semreg.report import write_report as write_report
    from semreg.runtime.events import Step as Step
    from semreg.transforms import read_transform as read_transform

    __version__: str

_HOMES = {
    "AlignConfig": "config",
    "Aligned": "registration.alignment",
    "Case": "report",
    "CoarseConfig": "config",
    "ConfigError": "errors",
    "DeviceError": "errors",
    "DivergedError": "errors",
    "Evaluation": "quality",
    "EvaluationConfig": "quality",
    "Evidence": "quality",
    "FeatureConfig": "config",
    "Field": "core.fields",
    "GateConfig": "config",
    "GeometryError": "errors",
    "Grid": "core.geometry",
    "ImageError": "errors",
    "IntensityConfig": "config",
    "Inverse": "core.consistency",
    "Layer": "core.fields",
    "LoadedImage": "io.bridge",
    "ModelConfig": "config",
    "ModelContractError": "errors",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "ModelSpec": "features.contract",
    "Normalisation": "features.contract",
    "OutputError": "errors",
    "OutputFolder": "io.files",
    "RefineConfig": "config",
    "Registration": "registration.result",
    "RegistrationConfig": "config",
    "SemregError": "errors",
    "Step": "runtime.events",
    "UncertaintyConfig": "config",
    "Verdict": "quality",
    "Volume": "core.fields",
    "align": "registration.alignment",
    "collect_evidence": "quality",
    "configure": "presets",
    "evaluate": "quality",
    "extract": "features.inference",
    "image_to_tensor": "itk.tensor",
    "infer": "features.inference",
    "inverse_consistency": "core.consistency",
    "invert": "core.consistency",
    "judge": "quality",
    "load_network": "features.networks",
    "plan": "registration.pipeline",
    "read_image": "io.files",
    "read_mask": "io.files",
    "read_transform": "transforms",
    "register": "registration.pipeline",
    "tensor_to_image": "itk.tensor",
    "to_volume": "io.bridge",
    "warp": "core.fields",
    "write_field": "io.files",
    "write_figures": "report",
    "write_image": "io.files",
    "write_report": "report",
    "write_transform": "io.files",
}
"""Public name → the module it lives in."""

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names of a dict are strings


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOMES:
        return getattr(import_module(f"semreg.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'semreg' has no attribute {name!r}")


def _version() -> str:
    """The version that was built, from the tag it was built at; ``0+unknown`` where nothing was built or installed."""
    from importlib.metadata import PackageNotFoundError, version  # costs more than all else here

    try:
        return version("semreg")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
