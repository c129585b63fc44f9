"""Networks that register in one pass, from files and from Python: loading, calling, and what they return checked.

Knows nothing of how images come to their input grid, and of what becomes of the displacement.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.shapes import Vectors
from semreg.errors import ConfigError, ModelContractError, ModelError, ModelNotFoundError
from semreg.features.agreement import FAILURES
from semreg.features.exported import ExportedModel
from semreg.features.loaded import Model, device_of, is_finite, last_line, outputs_at, outputs_of
from semreg.features.networks import model_of, open_model
from semreg.features.registrar_spec import RegistrarSpec
from semreg.io.ordinary_file import check_file
from semreg.runtime.memory import is_out_of_memory
from semreg.runtime.settings import from_toml

SMALL = 32
"""Voxels an axis of the input that is tried where the description leaves them open, at least."""


@dataclass(frozen=True, eq=False)
class Registrar:
    """A network that registers, and its description, on one device."""

    spec: RegistrarSpec
    device: torch.device
    model: Model = field(repr=False)
    sha256: str | None = None
    """Checksum of the file it came from."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the start network {self.spec.name}" if self.spec.name else "the start network"

    def __call__(self, fixed: Float[Tensor, "1 *s"], moving: Float[Tensor, "1 *s"]) -> Vectors:
        """What it returns for two images on its input grid, normalised: (D, *S), as ``RegistrarSpec`` says.

        Raises ModelContractError for a network that does not take the images, or returns something else.
        """
        inputs = [each[None].to(self.device, torch.float32) for each in (fixed, moving)]
        inputs = inputs if self.spec.first == "fixed" else inputs[::-1]
        stacked = not self.model.parameters
        given = [torch.cat(inputs, 1)] if stacked else inputs
        try:
            with torch.no_grad():
                outputs = outputs_of(self.model(*given))
        except FAILURES as error:
            if is_out_of_memory(error) or isinstance(error, ModelContractError):
                raise
            form = "one input of two channels" if stacked else "two inputs of one channel"
            raise ModelContractError(
                f"expected {self.name} to take both images as {form} of the shape {tuple(given[0].shape)}, got "
                f"{type(error).__name__}: {last_line(error)}; set shape, spacing_mm, multiple or dimension in its "
                "description, or give a network that registers"
            ) from error
        name, output = outputs_at((self.spec.output,), outputs, self.name)[0]
        return self._checked(name, output, tuple(fixed.shape[1:]))

    def attempt(self) -> None:
        """Let it see two images of noise, of its own size if that is known, else of a small one."""
        size = self.spec.multiple * -(-SMALL // self.spec.multiple)
        shape = self.spec.shape or (size,) * self.spec.dimension
        generator = torch.Generator().manual_seed(0)
        self(*torch.rand(2, 1, *shape, generator=generator))

    def _checked(self, name: str, output: Any, shape: tuple[int, ...]) -> Vectors:
        """The displacement in an output, float32, or ModelContractError."""
        wanted = (1, self.spec.dimension, *shape)
        if not isinstance(output, Tensor) or tuple(output.shape) != wanted:
            got = f"one of {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ModelContractError(
                f"expected a displacement of the shape {wanted} as {name} of {self.name}, a component for each axis "
                f"and a vector for each voxel, got {got}: set output in its description, or give another network"
            )
        values = output[0].to(torch.float32)
        if not is_finite(values):
            raise ModelContractError(
                f"expected finite values in {name} of {self.name}, got NaN or infinity: set normalisation in its "
                "description to what the network was trained on"
            )
        return values


def load_registrar(
    path: str | Path, *, spec: RegistrarSpec | None = None, device: str | torch.device = "cpu"
) -> Registrar:
    """The network that registers in a file of TorchScript or of ``torch.export``.

    Args:
        path: the file; a pickle is refused, because opening one runs it.
        spec: its description; None: the TOML file beside it.
        device: where it is stored and runs.

    Returns:
        The network, in evaluation mode.

    Raises:
        ModelNotFoundError: for a file that does not exist.
        ModelError: for a file that holds no model, another checksum than ``spec.sha256``, and a description that is
            missing or cannot be read; all before anything in the file runs.
        ModelContractError: for a network that takes neither one nor two inputs.
    """
    path = check_file(path, "the file of a start network", ModelNotFoundError)
    spec = read_registrar_spec(path) if spec is None else spec
    place = device_of(device)
    model, checksum = open_model(path, spec.sha256, place)
    return _registrar(replace(spec, name=spec.name or path.stem), place, model, checksum)


def read_registrar_spec(path: str | Path) -> RegistrarSpec:
    """The description beside the file, ``net.toml`` for ``net.pt``. Raises ModelError."""
    beside = Path(path).with_suffix(".toml")
    if not beside.exists():
        raise ModelError(
            f"expected the description of the start network in {beside}, got no such file: write first, direction, "
            "unit, components, and shape or spacing_mm into it"
        )
    try:
        return from_toml(RegistrarSpec, beside)
    except ConfigError as error:
        raise ModelError(f"{beside}: {error}") from error


def as_registrar(
    model: str | Path | Registrar | Callable[..., Any],
    spec: RegistrarSpec | None = None,
    device: str | torch.device = "cpu",
) -> Registrar:
    """What registers in one pass, ready to be called.

    Args:
        model: a file, a ``Registrar``, a module, a program, or another callable.
        spec: its description; None: that beside the file, or the attribute ``spec`` of a module.
        device: where it runs.

    Returns:
        The network; a module is copied only to move it.

    Raises:
        ModelError: for what is no model or has no description, as ``load_registrar``.
        ModelContractError: for a network that takes neither one nor two inputs.
    """
    if isinstance(model, Registrar):
        target = device_of(device)
        moved = model.model if model.device == target else model.model.to(target)
        return replace(model, spec=spec or model.spec, device=target, model=moved)
    if isinstance(model, (str, Path)):
        return load_registrar(model, spec=spec, device=device)
    found = spec or getattr(model, "spec", None)
    if not isinstance(found, RegistrarSpec):
        raise ModelError(
            f"expected a description with the start network, got a {type(model).__name__} without one: "
            "semreg.features.registrar.as_registrar(model, RegistrarSpec(...)) gives one to it"
        )
    place = device_of(device)
    return _registrar(found, place, model_of(model).to(place), None)


def _registrar(spec: RegistrarSpec, device: torch.device, model: Model, checksum: str | None) -> Registrar:
    """The network with the input size that a program fixes, if its inputs can be two images."""
    name = spec.name or "the start network"
    if len(model.parameters) > 1:
        raise ModelContractError(
            f"expected a network that takes two images, as one input of two channels or as two inputs, got {name}, "
            f"which takes {1 + len(model.parameters)}: export one that registers"
        )
    if isinstance(model, ExportedModel) and model.patch is not None:
        if len(model.patch) != spec.dimension or spec.shape not in (None, model.patch):
            asked = f"of {spec.dimension}-D images" if spec.shape is None else f"of the shape {spec.shape}"
            raise ModelContractError(
                f"expected a program for inputs {asked}, as described, got {name}, which takes {model.patch}: "
                "set shape and dimension"
            )
        spec = replace(spec, shape=model.patch)
    if spec.shape is None and spec.spacing_mm is None:
        raise ModelError(f"expected shape or spacing_mm in the description of {name}, got neither: set one")
    if spec.shape is not None and math.prod(spec.shape) < 2:
        raise ModelError(f"expected an input of more than one voxel for {name}, got the shape {spec.shape}")
    return Registrar(spec, device, model, checksum)
