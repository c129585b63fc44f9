"""Metrics written in Python that drive ITK's v4 registration: the base class and the class of ITK's objects.

C++ (the package ``semreg-itkv4``) makes the sample points, maps them through ITK's transforms, leaves out what lies
outside of images and masks, and applies the chain rule. Knows nothing of features.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from weakref import ref

import numpy as np
import numpy.typing as npt

from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.io.bridge import import_itk
from semreg.itk.api.objects import snake_case
from semreg.itk.target import Points, Target

__all__ = ["SCALES_ESTIMATORS", "Points", "PythonMetricv4", "itk_class", "load_bridge"]

SCALES_ESTIMATORS = (
    "RegistrationParameterScalesFromPhysicalShift",
    "RegistrationParameterScalesFromIndexShift",
    "RegistrationParameterScalesFromJacobian",
)
"""Templates of ITK whose parameter is the class of the metric."""


class PythonMetricv4:
    """Base class of metrics for ``itk.ImageRegistrationMethodv4`` and ITK's v4 optimisers. Override ``evaluate``.

    ``MyMetric[ImageType, ImageType].New()`` is an ITK object with all methods of an image metric of ITK (images,
    transforms, masks, sampled points, virtual domain), and those that MyMetric adds. Float images in 2-D and 3-D.

    An exception in a method stops the registration: its caller gets ITK's RuntimeError with type, text and traceback in
    the message, and ``metric.error`` is the exception itself.
    """

    fixed: Volume
    """The fixed image (1, z, y, x), raw intensities, as ITK gave it to the metric: smoothed by the registration."""
    moving: Volume
    """The moving image, likewise."""
    virtual: Grid
    """The virtual domain, whose resolution is that of the level."""
    moving_points: Callable[[Points], Points]
    """Any points (P, D) of the fixed image to the moving one as it is now; only while the metric is evaluated."""
    on_modified: Callable[[], None]
    """Tells ITK that a setting was changed, so that a registration runs again."""
    _points: Points

    def __class_getitem__(cls, types: Any) -> Any:
        """The ITK class for images of these types: ``MyMetric[ImageType, ImageType]``."""
        metric: Any = cls
        return itk_class(metric, _dimension(types, cls.__name__))

    @classmethod
    def New(cls, *_: Any, **__: Any) -> Any:  # noqa: N802 (ITK's name)
        """Refused without types in brackets, as ITK does (TypeError)."""
        raise TypeError(f"expected image types, as in {cls.__name__}[ImageType, ImageType].New(), got none")

    def initialize(self) -> None:
        """Called at the start of each level, with ``fixed`` and ``moving`` set; for what is computed once."""

    def place(self, fixed_points: Points) -> None:
        """Called after ``initialize`` with all sample points (N, D) in the fixed image, x first, mm, LPS."""
        self._points = fixed_points

    def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points | None]:
        """The value to be lowered and its derivative with respect to ``moving_points`` (M, D), per mm.

        Both arrays hold points x first, in mm, LPS; those outside of one of the images or masks are left out.
        Optimisers that need no derivative (Powell, Amoeba, OnePlusOne, Exhaustive) take None for it.
        """
        raise NotImplementedError(f"expected {type(self).__name__} to override evaluate")

    def evaluate_rows(
        self,
        rows: npt.NDArray[np.int64],
        moving_points: Points,
        *,
        derivative: bool,  # noqa: ARG002 (for metrics that spare it)
    ) -> tuple[float, Points | None]:
        """``evaluate`` for metrics that prepare the samples in ``place``: ``rows`` (M,) are those that count now."""
        return self.evaluate(self._points[rows], moving_points)


@cache
def itk_class(metric: Any, dimension: int) -> Any:
    """The class of ITK objects that evaluate ``metric``: a subclass of one of ITK's own."""
    itk = import_itk()
    bridge = load_bridge()
    base = type(bridge.make_metric(dimension, None, metric.__name__))

    class ITKMetric(base):  # type: ignore[misc, valid-type]
        """An image metric of ITK; what ITK does not know is answered by ``python``."""

        python: PythonMetricv4
        error: BaseException | None = None

        @classmethod
        def New(cls, *inputs: Any, **settings: Any) -> Any:  # noqa: N802 (ITK's name)
            """A metric with these settings: ``New(fixed_image=image)`` calls ``SetFixedImage(image)``."""
            python = metric()
            result = cls.__new__(cls)
            target = Target(python, bridge.map_points, ref(result))
            made = bridge.make_metric(dimension, target, metric.__name__)
            result.this = made.this  # owns the object in C++, which owns the target, which owns the Python part
            result.python = python
            python.on_modified = _modifier(ref(result), base)
            _set_all(result, inputs, settings)
            return result

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or name in ("this", "python"):
                raise AttributeError(name)
            return getattr(self.python, name)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *dir(self.python)})

    ITKMetric.__name__ = ITKMetric.__qualname__ = f"itk{metric.__name__}F{dimension}F{dimension}"
    for name in SCALES_ESTIMATORS:
        template = getattr(itk, name)
        template.__template__[(ITKMetric,)] = template[base]
    return ITKMetric


def load_bridge() -> Any:
    """The binary module, or ImportError with what to install."""
    try:
        import semreg_itkv4
    except ModuleNotFoundError:
        raise ImportError(
            "expected the package semreg-itkv4 for v4 metrics, got none: pip install 'semreg[itk]', or make native in "
            "a clone"
        ) from None
    return semreg_itkv4.load()


def _modifier(owner: ref[Any], base: Any) -> Callable[[], None]:
    def modified() -> None:
        metric = owner()
        if metric is not None:
            base.Modified(metric)

    return modified


def _set_all(metric: Any, inputs: Sequence[Any], settings: Mapping[str, Any]) -> None:
    """Call ``SetName`` for each setting, in ITK's spelling or in snake case (TypeError); images first."""
    known = [name.removeprefix("Set") for name in dir(metric) if name.startswith("Set")]
    names = {snake_case(name): name for name in known} | {name: name for name in known}
    if len(inputs) > 2:
        raise TypeError(f"expected the fixed and the moving image at most, got {len(inputs)} inputs: name the others")
    for name, value in [*zip(("FixedImage", "MovingImage"), inputs, strict=False), *settings.items()]:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise TypeError(f"expected a setting of the metric, got {name!r}: did you mean {' or '.join(nearest)}?")
        getattr(metric, f"Set{names[name]}")(value)


def _dimension(types: Any, name: str) -> int:
    """2 or 3, from one or two float image types (TypeError)."""
    itk = import_itk()
    given = types if isinstance(types, tuple) else (types, types)
    for dimension in (2, 3):
        if len(given) == 2 and all(t is itk.Image[itk.F, dimension] for t in given):
            return dimension
    names = ", ".join(getattr(t, "__name__", repr(t)) for t in given)
    raise TypeError(
        f"expected {name}[ImageType, ImageType] with itk.Image[itk.F, 2] or itk.Image[itk.F, 3] twice, got {names}: "
        "read images with itk.imread(path, itk.F)"
    )
