"""semreg registers medical images in feature space, and runs the networks that the features come from.

The public names are imported when they are first used, so that ``import semreg`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semreg.alignment import Aligned as Aligned
    from semreg.alignment import align as align
    from semreg.config import AlignConfig as AlignConfig
    from semreg.config import CoarseConfig as CoarseConfig
    from semreg.config import FeatureConfig as FeatureConfig
    from semreg.config import GateConfig as GateConfig
    from semreg.config import IntensityConfig as IntensityConfig
    from semreg.config import ModelConfig as ModelConfig
    from semreg.config import RefineConfig as RefineConfig
    from semreg.config import RegistrationConfig as RegistrationConfig
    from semreg.config import UncertaintyConfig as UncertaintyConfig
    from semreg.consistency import Inverse as Inverse
    from semreg.consistency import inverse_consistency as inverse_consistency
    from semreg.consistency import invert as invert
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
    from semreg.evaluation import Evaluation as Evaluation
    from semreg.evaluation import EvaluationConfig as EvaluationConfig
    from semreg.evaluation import evaluate as evaluate
    from semreg.events import Step as Step
    from semreg.features.contract import ModelSpec as ModelSpec
    from semreg.features.contract import Normalisation as Normalisation
    from semreg.features.networks import load_network as load_network
    from semreg.fields import Field as Field
    from semreg.fields import Layer as Layer
    from semreg.fields import Volume as Volume
    from semreg.fields import warp as warp
    from semreg.files import OutputFolder as OutputFolder
    from semreg.files import read_image as read_image
    from semreg.files import read_mask as read_mask
    from semreg.files import write_field as write_field
    from semreg.files import write_image as write_image
    from semreg.files import write_transform as write_transform
    from semreg.gates import Evidence as Evidence
    from semreg.gates import Verdict as Verdict
    from semreg.gates import collect_evidence as collect_evidence
    from semreg.gates import judge as judge
    from semreg.geometry import Grid as Grid
    from semreg.inference import extract as extract
    from semreg.inference import infer as infer
    from semreg.itk_bridge import LoadedImage as LoadedImage
    from semreg.itk_bridge import to_volume as to_volume
    from semreg.itk_tensor import image_to_tensor as image_to_tensor
    from semreg.itk_tensor import tensor_to_image as tensor_to_image
    from semreg.planning import plan as plan
    from semreg.presets import configure as configure
    from semreg.registration import Registration as Registration
    from semreg.registration import register as register
    from semreg.reports import Case as Case
    from semreg.reports import write_figures as write_figures
    from semreg.reports import write_report as write_report
    from semreg.transforms import read_transform as read_transform

    __version__: str

_HOMES = {
    "AlignConfig": "config",
    "Aligned": "alignment",
    "Case": "reports",
    "CoarseConfig": "config",
    "ConfigError": "errors",
    "DeviceError": "errors",
    "DivergedError": "errors",
    "Evaluation": "evaluation",
    "EvaluationConfig": "evaluation",
    "Evidence": "gates",
    "FeatureConfig": "config",
    "Field": "fields",
    "GateConfig": "config",
    "GeometryError": "errors",
    "Grid": "geometry",
    "ImageError": "errors",
    "IntensityConfig": "config",
    "Inverse": "consistency",
    "Layer": "fields",
    "LoadedImage": "itk_bridge",
    "ModelConfig": "config",
    "ModelContractError": "errors",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "ModelSpec": "features.contract",
    "Normalisation": "features.contract",
    "OutputError": "errors",
    "OutputFolder": "files",
    "RefineConfig": "config",
    "Registration": "registration",
    "RegistrationConfig": "config",
    "SemregError": "errors",
    "Step": "events",
    "UncertaintyConfig": "config",
    "Verdict": "gates",
    "Volume": "fields",
    "align": "alignment",
    "collect_evidence": "gates",
    "configure": "presets",
    "evaluate": "evaluation",
    "extract": "inference",
    "image_to_tensor": "itk_tensor",
    "infer": "inference",
    "inverse_consistency": "consistency",
    "invert": "consistency",
    "judge": "gates",
    "load_network": "features.networks",
    "plan": "planning",
    "read_image": "files",
    "read_mask": "files",
    "read_transform": "transforms",
    "register": "registration",
    "tensor_to_image": "itk_tensor",
    "to_volume": "itk_bridge",
    "warp": "fields",
    "write_field": "files",
    "write_figures": "reports",
    "write_image": "files",
    "write_report": "reports",
    "write_transform": "files",
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
