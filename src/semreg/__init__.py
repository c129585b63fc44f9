"""semreg registers medical images in feature space, and runs the networks that the features come from.

The public names are those of ``__init__.pyi``; each is imported when it is first used, so that ``import semreg`` costs
nothing. What else there is has its place in a room: ``semreg.config.CoarseConfig``, ``semreg.errors.ImageError``.
"""

import lazy_loader

from semreg.runtime import moved

_attribute, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *_names]  # noqa: PLE0604 - they are strings


def __getattr__(name):  # noqa: ANN001, ANN202 - __init__.pyi has the types
    if name == "__version__":
        return _version()
    if name in _names:
        return _attribute(name)
    raise AttributeError(moved.sentence(name) or f"module 'semreg' has no attribute {name!r}")


def _version():  # noqa: ANN202 - as above
    """The version that was built, from the tag it was built at; ``0+unknown`` where nothing was built or installed."""
    from importlib.metadata import PackageNotFoundError, version  # costs more than all else here

    try:
        return version("semreg")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__():  # noqa: ANN202 - as above
    return sorted(__all__)
