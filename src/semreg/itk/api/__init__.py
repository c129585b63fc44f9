"""The classes of itk-impact for ITK scripts: ``import semreg.itk.api`` puts them, by their names, into ``itk``.

``itk.ImpactModelConfiguration`` (and ``itk.ModelConfiguration``), ``itk.ImageToFeaturesMap``,
``itk.ImpactCoarseRegistration``, ``itk.ImpactFineRegistration``, ``itk.ImpactImageToImageMetricv4``, and the functions
``itk.image_to_features_map``, ``itk.impact_coarse_registration`` and ``itk.impact_fine_registration``. Of ITK only
the package itself is loaded. The metric needs the package semreg-itkv4 too, when it is used.
"""

from __future__ import annotations

import logging
from importlib import metadata
from typing import Any

from semreg.errors import ImageError
from semreg.io.bridge import import_itk, itk_template
from semreg.itk.api.features_map import ImageToFeaturesMap
from semreg.itk.api.model_configuration import ConfigurationVector, ImpactModelConfiguration, ModelConfiguration
from semreg.itk.api.process import ProcessAborted
from semreg.itk.api.registration import ImpactCoarseRegistration, ImpactFineRegistration

__all__ = [
    "ImageToFeaturesMap",
    "ImpactCoarseRegistration",
    "ImpactFineRegistration",
    "ImpactImageToImageMetricv4",
    "ImpactModelConfiguration",
    "ModelConfiguration",
    "ProcessAborted",
    "image_to_features_map",
    "impact_coarse_registration",
    "impact_fine_registration",
]

PEER = "itk-impact"
"""The distribution whose names these are."""

logger = logging.getLogger("semreg")


class _Metric:
    """Stands for the class of the metric until it is used: that needs a package of its own."""

    def _loaded(self) -> Any:
        from semreg.itk.api.impact_metric import ImpactImageToImageMetricv4 as Loaded

        return Loaded

    def __getitem__(self, types: Any) -> Any:
        return self._loaded()[types]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loaded(), name)

    def __repr__(self) -> str:
        return "<itk.ImpactImageToImageMetricv4 of semreg>"


ImpactImageToImageMetricv4 = _Metric()


def impact_coarse_registration(*images: Any, **settings: Any) -> Any:
    """The displacement field of ``ImpactCoarseRegistration``: ``(fixed, moving, grid_spacing=4)``."""
    return ImpactCoarseRegistration.New()(*images, **settings)


def impact_fine_registration(*images: Any, **settings: Any) -> Any:
    """The displacement field of ``ImpactFineRegistration``: ``(fixed, moving, models_configuration=[...])``."""
    return ImpactFineRegistration.New()(*images, **settings)


def image_to_features_map(*images: Any, **settings: Any) -> Any:
    """The map, or a tuple of maps, of ``ImageToFeaturesMap``: ``(image, model_configuration=...)``."""
    return ImageToFeaturesMap.New()(*images, **settings)


def _install() -> None:
    """Put the names into ``itk``; a word in the log where another package has them too."""
    try:
        itk = import_itk()
    except ImageError as error:
        raise ImportError(
            "expected the package itk for semreg.itk.api, it is not installed: pip install 'semreg[itk]'"
        ) from error
    for name in __all__:
        setattr(itk, name, globals()[name])
    itk_template("std::vector").__template__[(ImpactModelConfiguration,)] = ConfigurationVector
    try:
        version = metadata.version(PEER)
    except metadata.PackageNotFoundError:
        return
    logger.warning(
        "%s %s is installed too: itk.ImpactCoarseRegistration and its kin are those of semreg in this process; leave "
        "out import semreg.itk.api to get the others",
        PEER,
        version,
    )


_install()
