"""The tree of exceptions. A message says what was expected, what came and what to do.

    SemregError
    ├── GeometryError(ValueError)     grids, directions, transforms that do not fit
    ├── ConfigError(ValueError)       settings: unknown name, value out of range
    ├── ImageError(ValueError)        files and voxels: missing, unreadable, vector, all NaN, empty mask
    ├── OutputError(OSError)          a folder that cannot be written
    ├── ModelError(ValueError)        files that hold no model, checksums that differ
    │   ├── ModelNotFoundError(FileNotFoundError)   no such file or name, not fetched, no network
    │   └── ModelContractError        a model and an image that do not fit: channels, dimension, outputs
    ├── DeviceError(RuntimeError)     a device that is not there
    └── DivergedError(RuntimeError)   a stage produced values that are not finite

Each is a built-in exception too, so that callers may catch whichever they know.
"""


class SemregError(Exception):
    """Base of all errors that semreg raises on purpose."""


class GeometryError(SemregError, ValueError):
    """A grid, direction or transform is impossible or does not fit the others."""


class ConfigError(SemregError, ValueError):
    """A setting is unknown or out of range."""


class ImageError(SemregError, ValueError):
    """An image or mask cannot be read or used."""


class OutputError(SemregError, OSError):
    """The output folder cannot be written."""


class ModelError(SemregError, ValueError):
    """A model cannot be loaded or used."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no model of that name or at that place."""


class ModelContractError(ModelError):
    """A model does not take or return what its description says."""


class DeviceError(SemregError, RuntimeError):
    """The device asked for is not available."""


class DivergedError(SemregError, RuntimeError):
    """A stage produced values that are not finite."""
