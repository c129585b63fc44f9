"""Flags as dataclasses: a command takes groups of flags, typer sees one parameter a flag. Knows no flag by name.

A flag is a field with ``Annotated[..., typer.Option(...)]``; a field that is a dataclass is a group within; any other
field is no flag and keeps its default. ``tuple[X, ...]`` is a flag that may be repeated. So each flag is written down
once, with its default and its help, and commands that share a group share all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` for typer: a parameter a flag in place of each dataclass; ValueError for a name given twice."""
    given_by = signature(command, eval_str=True).parameters
    hints = {name: parameter.annotation for name, parameter in given_by.items()}
    parameters: list[Parameter] = []
    for name, parameter in given_by.items():
        group = is_dataclass(hints[name])
        parameters += _parameters(hints[name]) if group else [_parameter(name, hints[name], parameter.default)]

    @wraps(command)
    def flat(**given: Any) -> None:
        command(**{name: _value(name, hint, given) for name, hint in hints.items()})

    flat.__dict__.pop("__wrapped__")  # typer would look through it, at the groups
    flat.__dict__["__signature__"] = Signature(parameters)
    flat.__annotations__ = {each.name: each.annotation for each in parameters}
    return flat


def _members(group: Any) -> Iterator[tuple[Field[Any], Any]]:
    """The flags and groups of a group, each with its type."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if is_dataclass(hints[field.name]) or get_origin(hints[field.name]) is Annotated:
            yield field, hints[field.name]


def _parameters(group: Any) -> Iterator[Parameter]:
    """One parameter for each flag of a group and of the groups within."""
    for field, hint in _members(group):
        if is_dataclass(hint):
            yield from _parameters(hint)
        else:
            yield _parameter(field.name, hint, Parameter.empty if field.default is MISSING else field.default)


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    """One flag as typer has it: of a repeated one a list, or None where nothing is the default."""
    if _repeats(hint):
        kind, *details = get_args(hint)
        several = list.__class_getitem__(get_args(kind)[0])
        required = default is Parameter.empty
        arguments = (several if required else several | None, *details)
        annotated: Any = Annotated
        hint, default = annotated[arguments], default if required else list(default) or None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _value(name: str, hint: Any, given: Mapping[str, Any]) -> Any:
    """The value of a flag, or a group with the values of its flags, from what typer found."""
    if is_dataclass(hint):
        group: Any = hint
        return group(**{field.name: _value(field.name, inner, given) for field, inner in _members(group)})
    return tuple(given[name] or ()) if _repeats(hint) else given[name]


def _repeats(hint: Any) -> bool:
    """Whether a flag may be given more than once: its type is ``tuple[X, ...]``."""
    if get_origin(hint) is not Annotated:
        return False
    kind = get_args(hint)[0]
    return get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,)
