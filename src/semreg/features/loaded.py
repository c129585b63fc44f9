"""A model ready to be called as IMPACT does, with what it takes and returns checked. Knows no files and no tiles."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from semreg.core.shapes import Batch, Direction, Numbers, Output
from semreg.errors import ModelContractError
from semreg.features import agreement, signature
from semreg.features.contract import IntensityStats, ModelSpec
from semreg.runtime.memory import is_out_of_memory

HALF = {"cuda": torch.float16, "cpu": torch.bfloat16, "mps": torch.float16}
"""What mixed precision means, by device."""


class Model(Protocol):
    """What the kinds of models have in common: modules, TorchScript, exported programs."""

    parameters: tuple[signature.Parameter, ...]
    size: int
    batch: int | None

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the model returns, as it returns it."""

    def to(self, device: torch.device) -> Model:
        """A copy on ``device``."""

    def keep(self, layers: Sequence[int], number: int) -> Callable[..., Any] | None:
        """The model shortened to some outputs (a list), where that is possible."""


class PythonModel:
    """A ``torch.nn.Module`` or another callable; all its outputs are computed, whichever are kept."""

    batch: int | None = None

    def __init__(self, function: Callable[..., Any]) -> None:
        """Put a module into evaluation mode; its parameters need no gradients."""
        module = function if isinstance(function, torch.nn.Module) else None
        if module is not None:
            module.eval().requires_grad_(requires_grad=False)
        self.function = function
        self.parameters = signature.of_callable(function if module is None else module.forward)
        self.size = 0 if module is None else sum(p.numel() for p in module.parameters())

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the function returns."""
        return self.function(*values, **named)

    def to(self, device: torch.device) -> PythonModel:
        """A copy of a module on ``device``; a function is taken to follow its input."""
        if isinstance(self.function, torch.nn.Module):
            return PythonModel(copy.deepcopy(self.function).to(device))
        return self

    def keep(self, layers: Sequence[int], number: int) -> None:
        """Nothing can be left out of Python code."""


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A model and its description: a ``Network`` on one device."""

    spec: ModelSpec
    device: torch.device
    model: Model = field(repr=False)
    sha256: str | None = None
    """Checksum of the file it came from."""
    layers: tuple[int, ...] | None = None
    """Outputs of the model that are given, in this order; None: all."""
    short: Callable[..., Any] | None = field(default=None, repr=False)
    """The model without what ``layers`` does not need."""

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return self.model.size

    def __call__(self, x: Batch, stats: IntensityStats, direction: Direction) -> list[Output]:
        """The outputs (B, C_l, *S_l), float32, for a batch of tiles ``x`` (B, spec.channels or 1, *S), float32.

        One channel is repeated. What the model is called with beside ``x`` is said in ``signature``. A module's list,
        tuple or dict of tensors counts in its order, a tensor is one output. Gradients reach ``x`` if it needs them.
        Raises ModelContractError where input, model and description do not fit; errors of memory pass.
        """
        self._check_input(x)
        x = x.expand(-1, self.spec.channels, *x.shape[2:])
        try:
            named = self.raw(x, stats, direction)
        except agreement.FAILURES as error:
            if is_out_of_memory(error) or isinstance(error, ModelContractError):
                raise
            raise ModelContractError(
                f"expected {self._name} to take a tile of shape {tuple(x.shape)}, got {type(error).__name__}: "
                f"{last_line(error)}; set channels, dimension, patch or multiple in its description"
            ) from error
        return [self._checked(name, output, x) for name, output in named]

    def to(self, device: str | torch.device) -> LoadedNetwork:
        """The same network on ``device``, its parameters copied; itself where it is there."""
        target = device_of(device)
        if target == self.device:
            return self
        moved = replace(self, device=target, model=self.model.to(target), layers=None, short=None)
        return moved if self.layers is None else moved.keep(self.layers)

    def keep(self, layers: tuple[int, ...]) -> LoadedNetwork:
        """A network that gives these outputs only, in this order; −1 is the last.

        TorchScript and exported programs are shortened where that can be done: outputs that are left out take no memory
        beyond their use. Raises ModelContractError for an output that there is not, here or, where no small input fits
        the model, in the first call.
        """
        if not layers:
            raise ModelContractError(f"expected at least one layer of {self._name}, got none: set layers")
        with torch.inference_mode(mode=False), torch.no_grad():
            exact = replace(self.spec, mixed_precision=False)
            whole = replace(self, layers=None, short=None, spec=exact)
            sample = agreement.sample(whole.values, exact, self.device)
            if sample is None:
                chosen = layers if self.layers is None else outputs_at(layers, self.layers, self._name)
                return replace(self, layers=tuple(chosen), short=None)
            positions = range(len(sample.outputs)) if self.layers is None else self.layers
            count = len(sample.outputs)
            plain = tuple(layer % count for layer in outputs_at(layers, positions, self._name))
            network = replace(self, layers=plain, short=None)
            short = self.model.keep(plain, network.number)
            if short is not None:
                shortened = replace(network, short=short, spec=exact)
                if agreement.agrees(shortened.values, sample, plain, exact.dimension):
                    return replace(shortened, spec=self.spec)
        return network

    @property
    def _name(self) -> str:
        return f"the model {self.spec.name}" if self.spec.name else "the model"

    @property
    def number(self) -> int:
        """How many layers a model that stops early must compute."""
        if self.layers is None or min(self.layers, default=-1) < 0:
            return signature.ALL_LAYERS
        return max(self.layers) + 1

    def raw(self, x: Batch, stats: IntensityStats, direction: Direction) -> list[tuple[str, Any]]:
        """The wanted outputs as the model makes them, and what to call them."""
        values, named = signature.arguments(self.model.parameters, self.number, stats, direction, x.device)
        function = self.short or self.model
        with _precision(self.device.type, self.spec):
            if self.model.batch == 1 and len(x) > 1:
                outputs = _joined([outputs_of(function(part, *values, **named)) for part in torch.split(x, 1)])
            else:
                outputs = outputs_of(function(x, *values, **named))
        if self.layers is None:
            return outputs
        if self.short is not None:
            return [(f"output {layer}", value) for layer, (_, value) in zip(self.layers, outputs, strict=True)]
        return outputs_at(self.layers, outputs, self._name)

    def values(self, x: Batch, stats: IntensityStats, direction: Direction) -> list[Any]:
        """The outputs as the model makes them, unchecked."""
        return [value for _, value in self.raw(x, stats, direction)]

    def _check_input(self, x: Tensor) -> None:
        dimension, channels = self.spec.dimension, self.spec.channels
        axes = "(B, C, " + ", ".join("zyx"[3 - dimension :]) + ")"
        if x.ndim != dimension + 2:
            raise ModelContractError(
                f"expected a tile of shape {axes} for {self._name}, got {tuple(x.shape)}: set dimension"
            )
        if x.shape[1] not in (1, channels):
            raise ModelContractError(
                f"expected a tile of 1 or {channels} channels for {self._name}, got {x.shape[1]}: set channels"
            )
        if x.dtype != torch.float32:
            raise ModelContractError(f"expected a tile of float32 for {self._name}, got {x.dtype}: convert it")
        if x.device != self.device:
            raise ModelContractError(
                f"expected a tile on {self.device} for {self._name}, got one on {x.device}: move one of them"
            )

    def _checked(self, name: str, output: Any, x: Batch) -> Output:
        """One output in float32, or ModelContractError."""
        if not isinstance(output, Tensor):
            raise ModelContractError(
                f"expected tensors from {self._name}, got a {type(output).__name__} as {name}: "
                "keep other layers, or wrap the model so that it returns a list of feature maps"
            )
        if output.ndim != x.ndim or len(output) != len(x) or output.numel() == 0:
            raise ModelContractError(
                f"expected {name} of {self._name} of shape ({len(x)}, C, {x.ndim - 2} sizes) for a tile of shape "
                f"{tuple(x.shape)}, got {tuple(output.shape)}: keep other layers, set dimension or patch, "
                "or wrap the model so that it returns feature maps"
            )
        values = output if output.dtype == torch.float32 else output.float()
        if not is_finite(values):
            raise ModelContractError(
                f"expected finite values in {name} of {self._name}, got NaN or infinity: set normalisation to what "
                "the model was trained on, switch mixed_precision off, or keep other layers"
            )
        return values


def device_of(device: str | torch.device) -> torch.device:
    """The device with its number, as tensors tell it."""
    return torch.empty(0, device=device).device


def _precision(kind: str, spec: ModelSpec) -> contextlib.AbstractContextManager[Any]:
    """Half precision where it is wanted and the kind of device has it, else none, whatever the caller is in."""
    if kind not in HALF or not torch.amp.is_autocast_available(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, dtype=HALF[kind], enabled=spec.mixed_precision)


def last_line(error: Exception) -> str:
    """What an error of torch comes down to: the end of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def outputs_of(returned: Any) -> list[tuple[str, Any]]:
    """What a model returned as a list, each with what to call it."""
    if isinstance(returned, dict):
        named = [(f"output {i} ({key})", value) for i, (key, value) in enumerate(returned.items())]
    elif isinstance(returned, (list, tuple)):
        named = [(f"output {i}", value) for i, value in enumerate(returned)]
    else:
        named = [("output 0", returned)]
    if not named:
        raise ModelContractError("expected tensors from the model, got no output: check what it returns")
    return named


def _joined(parts: list[list[tuple[str, Any]]]) -> list[tuple[str, Any]]:
    """The outputs of single images as those of a batch."""
    return [(outputs[0][0], torch.cat([value for _, value in outputs])) for outputs in zip(*parts, strict=True)]


def outputs_at(layers: Sequence[int], outputs: Sequence[Any], name: str) -> list[Any]:
    """These of the outputs of the model ``name``, −1 is the last. Raises ModelContractError where there are fewer."""
    count = len(outputs)
    for layer in layers:
        if not -count <= layer < count:
            raise ModelContractError(
                f"expected layers of {name} from 0 to {count - 1}, or from {-count} to -1, got {layer}: "
                f"it has {count} output{'s' if count > 1 else ''}"
            )
    return [outputs[layer] for layer in layers]


def is_finite(values: Numbers) -> bool:
    """One pass without a copy: a sum shows NaN and infinity; only a sum that overflows needs a second one."""
    return math.isfinite(float(values.detach().sum())) or bool(torch.isfinite(values).all())
