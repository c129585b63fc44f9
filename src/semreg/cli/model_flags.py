"""The flags of ``register`` and ``batch`` that choose models, as settings. Loads no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from semreg.cli.panels import MODELS, flag
from semreg.config import ModelConfig
from semreg.distances import DISTANCES
from semreg.errors import ConfigError
from semreg.features.descriptors import DESCRIPTORS


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """What was given for each flag, in order. All but ``model`` are given once for all models or once a model."""

    model: Annotated[
        tuple[str, ...],
        flag(
            f"Feature model: {', '.join(DESCRIPTORS)}, a name, or a file; repeatable, they add up.",
            "FILE|NAME",
            "--model",
            "-m",
            panel=MODELS,
        ),
    ] = ()
    moving_model: Annotated[tuple[str, ...], flag("Another one for the moving image.", "FILE|NAME", panel=MODELS)] = ()
    layers: Annotated[tuple[str, ...], flag("Its outputs that are compared, such as 0,2.", "N,N", panel=MODELS)] = ()
    distance: Annotated[
        tuple[str, ...], flag(f"How: {', '.join(DISTANCES)}; l1,l2 by layer.", "NAME", panel=MODELS)
    ] = ()
    weight: Annotated[tuple[str, ...], flag("How much it counts; 1,0.5 by layer.", "X", panel=MODELS)] = ()
    pca: Annotated[tuple[str, ...], flag("Principal components that are kept, 0: all.", "N", panel=MODELS)] = ()
    spec: Annotated[
        tuple[str, ...], flag("Name=value: what its description is to say instead.", "NAME=VALUE", panel=MODELS)
    ] = ()


def model_configs(base: Sequence[ModelConfig], flags: ModelFlags) -> tuple[ModelConfig, ...]:
    """The models of the settings: those of ``--model`` in place of ``base``, and the other flags on top.

    Of one model all ``--spec`` hold; of several, one ``--spec`` with commas between its values is for all or one is for
    each. Raises ConfigError for a number of values that does not fit and for values that cannot be.
    """
    models = [ModelConfig(model=name) for name in flags.model] or list(base)
    for name, values in (
        ("layers", flags.layers),
        ("distance", flags.distance),
        ("weight", flags.weight),
        ("pca", flags.pca),
    ):
        dealt = _dealt(models, values, name, networks=name == "layers")
        models = [_set(model, name, text) for model, text in dealt]
    models = [
        model if path is None else replace(model, moving=path)
        for model, path in _dealt(models, flags.moving_model, "moving-model")
    ]
    if len(models) == 1:
        return (replace(models[0], spec=(*models[0].spec, *[one for text in flags.spec for one in _specs(text)])),)
    return tuple(
        model if text is None else replace(model, spec=(*model.spec, *_specs(text)))
        for model, text in _dealt(models, flags.spec, "spec", networks=True)
    )


def _dealt(
    models: Sequence[ModelConfig], values: Sequence[str], flag: str, *, networks: bool = False
) -> list[tuple[ModelConfig, str | None]]:
    """Each model with its value, None where none was given; one for all goes to ``networks`` alone if that is asked."""
    if len(values) not in (0, 1, len(models)):
        raise ConfigError(
            f"expected --{flag} once, or once for each of {len(models)} models, got it {len(values)} times: "
            "leave some out, or name more models"
        )
    each: list[str | None] = [*values]
    if len(values) < len(models):
        each = (each or [None]) * len(models)
    shared = networks and len(values) == 1 < len(models)
    each = [None if shared and model.model in DESCRIPTORS else text for model, text in zip(models, each, strict=True)]
    return list(zip(models, each, strict=True))


def _set(model: ModelConfig, name: str, text: str | None) -> ModelConfig:
    from semreg.runtime.settings import override

    if text is None:
        return model
    try:
        return override(model, f"{name}={text}")
    except ConfigError as error:
        raise ConfigError(f"--{name} {text}: {error}") from error


def _specs(text: str) -> tuple[str, ...]:
    """``axes=LIA,patch=[96,96,96]`` as two assignments; one with commas in its value stays one."""
    from semreg.runtime.settings import override

    return (text,) if text.count("=") == 1 else override(ModelConfig(), f"spec={text}").spec
