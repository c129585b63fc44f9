"""What all ITK-style objects here share: ``Class[types].New()``, Set/Get from a table, modified times and observers.

Knows nothing of images and registration. An observer is called without arguments, as ITK's Python does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

from semreg.errors import ConfigError
from semreg.io.bridge import import_itk
from semreg.itk.api.checks import Check


@dataclass(frozen=True)
class Option:
    """One value that a script sets and gets: ``SetName``, ``GetName``, and ``NameOn``, ``NameOff`` for a switch."""

    name: str
    """As in ``SetGridSpacing``: ``GridSpacing``."""
    default: Any
    check: Check
    doc: str
    """One sentence with its unit."""
    switch: bool = False


class ITKObject:
    """Base of the ITK-style classes: options, modified time, observers."""

    OPTIONS: ClassVar[tuple[Option, ...]] = ()
    DIMENSION: ClassVar[int | None] = None
    """2 or 3 in the classes that types in brackets give, else what the images have."""
    _tags: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the methods that the table of options asks for."""
        super().__init_subclass__(**kwargs)
        for option in cls.__dict__.get("OPTIONS", ()):
            _install(cls, option)

    def __init__(self) -> None:
        """All options at their defaults."""
        self._values = {option.name: option.default for option in self.options()}
        self._observers: dict[int, tuple[Any, Any]] = {}
        self._tags = 0
        self._time = import_itk().TimeStamp()
        self.Modified()

    def __class_getitem__(cls, types: Any) -> type[Self]:
        """The class for images of these types: float images in 2-D or 3-D (TypeError for others)."""
        if cls.DIMENSION is not None:
            raise TypeError(f"expected no further types for {cls.__name__}, got {types!r}")
        made: Any = _for_dimension
        found: type[Self] = made(cls, cls.dimension_of(types))
        return found

    @classmethod
    def dimension_of(cls, types: Any) -> int:
        """2 or 3 from what stands in the brackets (TypeError)."""
        given = types if isinstance(types, tuple) else (types, types)
        itk = import_itk()
        for dimension in (2, 3):
            if len(given) == 2 and all(each is itk.Image[itk.F, dimension] for each in given):
                return dimension
        raise type_refusal(cls.__name__, "ImageType, ImageType", given)

    @classmethod
    def New(cls, *inputs: Any, **settings: Any) -> Self:  # noqa: N802 (ITK's name)
        """A new object; ``New(grid_spacing=4)`` or ``New(GridSpacing=4)`` is ``SetGridSpacing(4)``."""
        made = cls()
        made.set_inputs(inputs)
        for name, value in settings.items():
            made.set_option(made.known(name), value)
        return made

    def set_inputs(self, inputs: Sequence[Any]) -> None:
        """What positional arguments of ``New`` are for: the fixed and the moving image, where there are such."""
        names = [option.name for option in self.options() if option.name in ("FixedImage", "MovingImage")]
        if len(inputs) > len(names):
            raise TypeError(
                f"expected at most {len(names)} inputs for {self.GetNameOfClass()}, got {len(inputs)}: name the others"
            )
        for name, value in zip(names, inputs, strict=False):
            self.set_option(name, value)

    @classmethod
    def options(cls) -> Iterator[Option]:
        """All options, those of base classes first."""
        for base in reversed(cls.__mro__):
            yield from base.__dict__.get("OPTIONS", ())

    def known(self, name: str) -> str:
        """The option that a keyword names, in ITK's spelling or in snake case (TypeError)."""
        settable = [method.removeprefix("Set") for method in dir(self) if method.startswith("Set")]
        for option in settable:
            if name in (option, snake_case(option)):
                return option
        nearest = difflib.get_close_matches(name, [snake_case(option) for option in settable], n=1, cutoff=0.0)
        raise TypeError(
            f"expected a setting of {self.GetNameOfClass()}, got {name!r}: did you mean {' or '.join(nearest)}?"
        )

    def set_option(self, name: str, value: Any) -> None:
        """Call ``SetName``."""
        getattr(self, f"Set{name}")(value)

    def Clone(self) -> Self:  # noqa: N802 (as above)
        """Another one with the same settings, of the same images where it has some."""
        other = type(self)()
        other._values = dict(self._values)  # noqa: SLF001 (it is one of these)
        return other

    @classmethod
    def cast(cls, value: Any) -> Self:
        """``value`` itself if it is one of these (TypeError), as ITK's classes have it."""
        if not isinstance(value, cls):
            raise TypeError(f"expected an object of {cls.__name__} to cast, got {type(value).__name__}")
        return value

    def GetNameOfClass(self) -> str:  # noqa: N802 (ITK's name, as below)
        """The name without types."""
        return next(base.__name__ for base in type(self).__mro__ if base.__dict__.get("DIMENSION") is None)

    def GetMTime(self) -> int:  # noqa: N802
        """When it was changed last, on the clock of all ITK objects."""
        return int(self._time.GetMTime())

    def Modified(self) -> None:  # noqa: N802
        """Say that it was changed: its output is out of date."""
        self._time.Modified()
        self._invoke("ModifiedEvent")

    def AddObserver(self, event: Any, command: Any) -> int:  # noqa: N802
        """Call ``command`` at each event of the kind of ``event``; returns the tag that removes it."""
        function = getattr(command, "Execute", command) if not callable(command) else command
        if not hasattr(event, "CheckEvent"):
            raise TypeError(f"expected an event such as itk.IterationEvent(), got {event!r}")
        if not callable(function):
            raise TypeError(f"expected a function without parameters, got {command!r}")
        self._tags += 1
        self._observers[self._tags] = (event, function)
        return self._tags

    def RemoveObserver(self, tag: int) -> None:  # noqa: N802
        """Take out one observer; nothing happens if there is none of that tag."""
        self._observers.pop(tag, None)

    def RemoveAllObservers(self) -> None:  # noqa: N802
        """Take out all observers."""
        self._observers.clear()

    def HasObserver(self, event: Any) -> bool:  # noqa: N802
        """Whether anybody is called at ``event``."""
        return any(wanted.CheckEvent(event) for wanted, _ in self._observers.values())

    def InvokeEvent(self, event: Any) -> None:  # noqa: N802
        """Call all observers of events of this kind."""
        for wanted, function in list(self._observers.values()):
            if wanted.CheckEvent(event):
                function()

    def _invoke(self, name: str) -> None:
        if self._observers:
            self.InvokeEvent(getattr(import_itk(), name)())

    def __repr__(self) -> str:
        changed = [option for option in self.options() if self._values[option.name] != option.default]
        rows = [f"  {option.name}: {_brief(self._values[option.name])}" for option in changed]
        name = type(self).__name__
        return "\n".join([f"{name} (all settings at their defaults)" if not rows else f"{name}:", *rows])


def snake_case(name: str) -> str:
    """``LNCCKernel`` as ``lncc_kernel``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def type_refusal(name: str, wanted: str, given: Any) -> TypeError:
    """What is said to types in brackets that there is no class for."""
    names = ", ".join(getattr(each, "__name__", repr(each)) for each in given)
    return TypeError(
        f"expected {name}[{wanted}] with ImageType itk.Image[itk.F, 2] or itk.Image[itk.F, 3], got {names}: read "
        "images with itk.imread(path, itk.F)"
    )


@cache
def _for_dimension(cls: Any, dimension: int) -> Any:
    return type(
        f"{cls.__name__}F{dimension}",
        (cls,),
        {"DIMENSION": dimension, "__doc__": cls.__doc__, "__module__": cls.__module__},
    )


def _install(cls: type[ITKObject], option: Option) -> None:
    """``SetName``, ``GetName``, ``NameOn`` and ``NameOff``, where the class has no method of that name itself."""

    def setter(self: ITKObject, value: Any) -> None:
        self._values[option.name] = option.check(option.name, value)
        self.Modified()

    def getter(self: ITKObject) -> Any:
        return self._values[option.name]

    methods: dict[str, Callable[..., Any]] = {f"Set{option.name}": setter, f"Get{option.name}": getter}
    if option.switch:
        methods[f"{option.name}On"] = lambda self: setter(self, value=True)
        methods[f"{option.name}Off"] = lambda self: setter(self, value=False)
    for name, function in methods.items():
        if name not in cls.__dict__:
            function.__name__, function.__qualname__ = name, f"{cls.__qualname__}.{name}"
            function.__doc__ = f"{option.doc} Default: {option.default!r}."
            setattr(cls, name, function)


def image_of(name: str, value: Any, dimension: int | None) -> Any:
    """An ITK image, or the output of an ITK filter, of the dimension of the class (TypeError, ConfigError)."""
    image = value.GetOutput() if hasattr(value, "GetOutput") and hasattr(value, "Update") else value
    if image is not None and not hasattr(image, "GetLargestPossibleRegion"):
        raise TypeError(
            f"expected an image of itk for {name}, got {type(value).__name__}: itk.imread(path, itk.F) reads one"
        )
    if image is not None and dimension is not None and image.GetImageDimension() != dimension:
        raise ConfigError(
            f"expected a {dimension}-D image for {name}, as the types in brackets say, got one in "
            f"{image.GetImageDimension()}-D: use itk.Image[itk.F, {image.GetImageDimension()}] in the brackets"
        )
    return image


def _brief(value: Any) -> str:
    """One line of an option's value."""
    if hasattr(value, "GetLargestPossibleRegion"):
        size = tuple(int(n) for n in value.GetLargestPossibleRegion().GetSize())
        return f"{type(value).__name__} of {' × '.join(map(str, size))} voxels"
    return repr(list(value) if isinstance(value, tuple) else value)
