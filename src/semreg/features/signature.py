"""How a model wants to be called: which parameters its ``forward`` has beside the image. Knows nothing of files.

The models published with IMPACT (arXiv:2503.24121) are ``forward(x)``, or ``forward(x, nb_layers, stats, direction)``
cut off after any of the four. ``nb_layers`` is how many outputs are wanted, counted from the first, a tensor of one
integer: the model stops there. ``stats`` is a float tensor of four: minimum, maximum, mean and standard deviation of
the whole image. ``direction`` is the direction matrix of ITK.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from semreg.core.shapes import Direction
from semreg.errors import ModelContractError
from semreg.features.contract import IntensityStats

ALL_LAYERS = 1000
"""More outputs than a model has: none stops early."""

Role = Literal["layers", "stats", "direction"]
Argument: TypeAlias = int | list[list[float]] | IntensityStats | Direction
"""What a model may get beside the image."""

ROLES: dict[Role, re.Pattern[str]] = {
    "layers": re.compile(r"(nb|n|num|number|number_of|count)_?layers?(_tensor)?", re.IGNORECASE),
    "stats": re.compile(r"(image_?)?(intensity_?)?(stats?|statistics)(_tensor)?", re.IGNORECASE),
    "direction": re.compile(r"(image_?)?directions?(_?(matrix|cosines))?(_tensor)?", re.IGNORECASE),
}
"""The order of IMPACT, and the names by which a parameter is recognised elsewhere."""


@dataclass(frozen=True)
class Parameter:
    """One parameter beside the image: what it gets, and whether as plain numbers and by keyword."""

    name: str
    role: Role
    plain: bool
    keyword: bool


@dataclass(frozen=True)
class _Found:
    name: str
    annotation: str
    optional: bool
    keyword: bool = False


def of_callable(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The parameters of a Python function or a module's ``forward`` after the first one.

    A name that says what it is decides (``nb_layers``, ``stats``, ``direction`` and near spellings). Other parameters
    are left alone if they have a default, else they get what IMPACT has in their place. A tensor is given unless the
    annotation asks for an ``int`` or a list. Raises ModelContractError for a parameter that nothing fits.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some built-in functions have none: the image alone
        return ()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = [
        _Found(p.name, _text(p.annotation), p.default is not p.empty, p.kind is p.KEYWORD_ONLY)
        for p in signature.parameters.values()
        if p.kind not in variadic
    ]
    return _with_roles(found[1:])


def of_schema(schema: Any) -> tuple[Parameter, ...]:
    """The parameters of a TorchScript method, by the rule of ``of_callable``; its schema starts with the module."""
    found = [_Found(a.name, str(a.type), a.has_default_value()) for a in schema.arguments]
    return _with_roles(found[2:])


def of_names(names: Iterable[str]) -> tuple[Parameter, ...]:
    """The parameters of a program that needs all its inputs, tensors, the image first."""
    return _with_roles([_Found(name, "Tensor", optional=False) for name in names][1:])


def arguments(
    parameters: tuple[Parameter, ...], number: int, stats: IntensityStats, direction: Direction, device: torch.device
) -> tuple[list[Argument], dict[str, Argument]]:
    """What a model gets beside the image: positional values and those by keyword.

    ``number`` of layers and ``direction`` stay on the CPU: models turn them into Python numbers. ``stats`` meet the
    image and are on its ``device``.
    """
    values: dict[Role, Callable[[bool], Argument]] = {
        "layers": lambda plain: number if plain else torch.tensor([number]),
        "stats": lambda plain: stats if plain else torch.tensor(stats, dtype=torch.float32, device=device),
        "direction": lambda plain: direction.tolist() if plain else direction.detach().to("cpu", torch.float32),
    }
    positional = [values[p.role](p.plain) for p in parameters if not p.keyword]
    return positional, {p.name: values[p.role](p.plain) for p in parameters if p.keyword}


def _with_roles(found: list[_Found]) -> tuple[Parameter, ...]:
    named = {f.name: role for f in found for role, pattern in ROLES.items() if pattern.fullmatch(f.name)}
    order = list(ROLES)
    result: list[Parameter] = []
    gap = False
    for position, f in enumerate(found):
        role = named.get(f.name)
        if role is None and f.optional:
            gap = True
            continue
        if role is None and position < len(order) and order[position] not in named.values():
            role = order[position]
        if role is None:
            raise ModelContractError(
                "expected a model called with the image and at most nb_layers, stats and direction, "
                f"got one that needs {f.name!r} too: wrap it in a module that takes the image"
            )
        result.append(Parameter(f.name, role, _is_plain(f.annotation), f.keyword or gap))
    return tuple(result)


def _text(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return "" if annotation is inspect.Parameter.empty else getattr(annotation, "__name__", "") + str(annotation)


def _is_plain(annotation: str) -> bool:
    text = annotation.lower()
    return "tensor" not in text and re.search(r"\b(int|list|tuple|sequence|intensitystats)\b", text) is not None
