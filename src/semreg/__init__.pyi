# The public names, each with the room it comes from: for type checkers, and read by lazy_loader at import.
from . import config as config
from . import errors as errors
from . import nn as nn
from . import quality as quality
from . import report as report
from . import transforms as transforms
from .config import RegistrationConfig as RegistrationConfig
from .core.fields import Field as Field
from .core.fields import Volume as Volume
from .core.fields import warp as warp
from .core.geometry import Grid as Grid
from .errors import SemregError as SemregError
from .features.contract import ModelSpec as ModelSpec
from .features.inference import extract as extract
from .features.inference import infer as infer
from .features.networks import load_network as load_network
from .io.bridge import to_volume as to_volume
from .io.files import read_image as read_image
from .io.files import read_mask as read_mask
from .io.files import write_field as write_field
from .io.files import write_image as write_image
from .io.files import write_transform as write_transform
from .itk.tensor import image_to_tensor as image_to_tensor
from .itk.tensor import tensor_to_image as tensor_to_image
from .presets import configure as configure
from .quality import collect_evidence as collect_evidence
from .quality import evaluate as evaluate
from .quality import judge as judge
from .quality.opening import open as open  # noqa: A004 - semreg.open, as of other packages
from .registration.alignment import Aligned as Aligned
from .registration.alignment import align as align
from .registration.pipeline import plan as plan
from .registration.pipeline import register as register
from .registration.result import Registration as Registration
from .report import write_figures as write_figures
from .report import write_report as write_report
from .transforms import read_transform as read_transform

__version__: str
