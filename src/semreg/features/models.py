"""Which model a name, a file or an object stands for. Loads what is named and nothing else; downloads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch

from semreg.errors import ModelContractError, ModelError
from semreg.features.catalogue.entries import find
from semreg.features.catalogue.folders import default_folder, locate
from semreg.features.contract import Descriptor, DescriptorSpec, ModelSpec, Network
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.networks import as_network, load_network, read_spec
from semreg.runtime.settings import override

SUFFIXES = (".pt", ".pt2", ".ts", ".jit", ".pth")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is asked of a model beside its name."""

    spec: tuple[str, ...] = ()
    """Values of its description that are to be others, as ``name=value``; of a descriptor its parameters."""
    layers: tuple[int, ...] | None = None
    """Outputs to keep; None: those its description keeps."""
    folders: tuple[str | Path, ...] = ()
    """Where fetched models lie, before the default folder."""
    dimension: int = 3
    """Of the image, for the built-in descriptors."""


def resolve_model(model: Any, choice: Choice, device: torch.device | str = "cpu") -> Descriptor | Network:
    """The model that ``model`` stands for, ready to be called on ``device``.

    A name of ``DESCRIPTORS`` such as ``mind``, the path of a file, a name from the catalogue, a ``torch.nn.Module`` or
    another callable.
    Raises ModelNotFoundError, ModelError, ModelContractError and ConfigError.
    """
    if isinstance(model, str) and model in DESCRIPTORS:
        _no_layers(model, choice)
        return DESCRIPTORS[model].of(model, choice.dimension, choice.spec)
    if is_descriptor(model):
        _no_layers(model.spec.name, choice)
        if choice.spec:
            raise ModelError(
                f"expected no description for {model.spec.name}, a formula, got {', '.join(choice.spec)}: leave it out"
            )
        return model
    network = _network(model, choice, device)
    shortened = getattr(network, "layers", None) is not None
    layers = network.spec.layers if choice.layers is None and not shortened else choice.layers
    if layers is None:
        return network
    keep = getattr(network, "keep", None)
    if keep is None:
        raise ModelContractError(
            f"expected a model that can leave outputs out, got {network.spec.name or 'a Network'}: pass the module"
        )
    kept: Network = keep(tuple(layers))
    return kept


def is_descriptor(model: Any) -> TypeGuard[Descriptor]:
    """Whether this is a formula and not a network."""
    return isinstance(getattr(model, "spec", None), DescriptorSpec)


def folders_of(folders: Sequence[str | Path] | str | Path) -> tuple[str | Path, ...]:
    """One folder or several as a tuple."""
    return (folders,) if isinstance(folders, (str, Path)) else tuple(folders)


def describe_model(model: str | Path) -> ModelSpec:
    """The description of a file or of a name from the catalogue; nothing is loaded."""
    if is_file_name(model):
        return read_spec(Path(model))
    return find(str(model)).spec


def is_file_name(model: str | Path) -> bool:
    """Whether this names a file and not an entry of the catalogue."""
    return isinstance(model, Path) or model.endswith(SUFFIXES) or Path(model).is_file()


def _network(model: Any, choice: Choice, device: torch.device | str) -> Network:
    if not isinstance(model, (str, Path)):
        own = getattr(model, "spec", None)
        described = isinstance(own, ModelSpec)
        if choice.spec and described and isinstance(model, Network) and not isinstance(model, torch.nn.Module):
            raise ModelError(
                f"expected no spec for {type(model).__name__}, which describes itself, got {', '.join(choice.spec)}: "
                "change its own description"
            )
        return as_network(model, _changed(own if isinstance(own, ModelSpec) else ModelSpec(), choice.spec), device)
    if is_file_name(model):
        return load_network(model, spec=_changed(read_spec(model), choice.spec), device=device)
    path = locate(str(model), [*choice.folders, default_folder()])
    return load_network(path, spec=_changed(find(str(model)).spec, choice.spec), device=device)


def _changed(spec: ModelSpec, assignments: Sequence[str]) -> ModelSpec:
    # the kind of normalisation goes last: whether it is complete depends on the others
    for assignment in sorted(assignments, key=lambda text: text.startswith("normalisation.kind")):
        spec = override(spec, assignment)
    return spec


def _no_layers(model: str, choice: Choice) -> None:
    if choice.layers not in (None, (0,), (-1,)):
        raise ModelError(
            f"expected no layers for {model}, which has one output, got {', '.join(map(str, choice.layers or ()))}: "
            "leave them out"
        )
