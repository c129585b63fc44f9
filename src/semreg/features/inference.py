"""One model on one image: its features, its outputs on the image's own grid, its labels.

Knows no files of images and no registration.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, ModelContractError, ModelError
from semreg.features.catalogue import default_folder, locate
from semreg.features.contract import Descriptor, DescriptorSpec, Network
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.extract import Extractor, describe, segment
from semreg.features.models import Choice, folders_of, is_file_name, resolve_model
from semreg.io.bridge import to_volume
from semreg.preprocess.preparation import clean
from semreg.runtime.devices import choose_device
from semreg.runtime.events import OnStep
from semreg.runtime.memory import held_bytes, parse_bytes

logger = logging.getLogger("semreg")

AnyModel = TypeVar("AnyModel", bound=Descriptor | Network)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is run: everything but the model and the image."""

    layers: tuple[int, ...] | None = None
    """Outputs that are kept, −1 is the last; None: those its description keeps."""
    spec: tuple[str, ...] = ()
    """Values of its description that are to be others, as ``name=value``."""
    memory: int | None = None
    """Bytes that the process (on a GPU: torch there) may hold in all; None: what is available."""
    device: str = "auto"
    folders: tuple[str | Path, ...] = ()
    """Where fetched models lie, before the default folder."""
    on_step: OnStep | None = None


def extract(  # noqa: PLR0913 - what a user may say of a model, each by its name
    image: Any,
    model: Any,
    *,
    layers: Sequence[int] | int | None = None,
    spec: Sequence[str] | str = (),
    mask: Any | None = None,
    memory: int | str | None = None,
    device: str = "auto",
    models: Sequence[str | Path] | str | Path = (),
    on_step: OnStep | None = None,
) -> tuple[Layer, ...]:
    """The features of an image that a model computes.

    Where the receptive field is known, features do not depend on how the image was cut into tiles; else the log says
    so.

    Args:
        image: anything ``semreg.to_volume`` takes, 2-D or 3-D.
        model: ``mind``, ``intensity``, the file of a network (TorchScript or torch.export), a name from the catalogue
            that was fetched, a ``torch.nn.Module``, another callable, or what ``load_network`` returns.
        layers: outputs to keep, counted from 0, −1 is the last; None: those its description keeps.
        spec: values that replace those of the description, such as ``["spacing_mm=1", "axes=LIA"]``.
        mask: voxels at 0 influence no statistic, and each layer carries the mask on its grid as weight; None: all
            count.
        memory: bytes, or text such as ``3GB``, that the process may hold in all; None: what is available.
        device: auto, cpu, cuda, cuda:n or mps.
        models: folders with fetched models.
        on_step: receives a ``Step`` after each tile.

    Returns:
        The layers, each (C, *S) on its own grid, float32 on the CPU.

    Raises:
        ImageError: for an image or a mask that cannot be used.
        GeometryError: for a position or direction that cannot be used.
        ModelNotFoundError: for a file or a name that is not there.
        ModelError: for a model that cannot be loaded, and a ``spec`` or ``layers`` that a built-in model does not have.
        ModelContractError: for a model and an image that do not fit.
        ConfigError: for a limit of memory that is too low, and a value of ``spec`` that is unknown or out of range.
        DeviceError: for a device that is unknown or not there.
    """
    options = _options(layers, spec, memory, device, models, on_step)
    volume, weight = prepare(image, mask)
    network = load(model, volume.grid.dimension, options)
    return layers_of(volume, weight, runner_of(network, options), options)


def infer(  # noqa: PLR0913 - the same
    image: Any,
    model: Any,
    *,
    layers: Sequence[int] | int | None = None,
    spec: Sequence[str] | str = (),
    argmax: bool = False,
    memory: int | str | None = None,
    device: str = "auto",
    models: Sequence[str | Path] | str | Path = (),
    on_step: OnStep | None = None,
) -> tuple[Volume, ...]:
    """The outputs of a model for an image, on the image's own grid.

    Args:
        image: as for ``extract``, as all but ``argmax``.
        model: the model, by file, name or object.
        layers: outputs to keep; None: those its description keeps, with ``argmax`` the last one.
        spec: values that replace those of the description.
        argmax: return one map of labels, the index of the largest channel, instead of the channels, which are then
            never held for the whole image.
        memory: the limit of memory.
        device: where it is computed.
        models: folders with fetched models.
        on_step: receives a ``Step`` after each tile.

    Returns:
        Every kept output (C, *S), float32 on the CPU; with ``argmax`` one map (1, *S), uint8, or int16 for more than
        256 classes.

    Raises:
        ImageError: as for ``extract``, as all that follow.
        GeometryError: for a position or direction that cannot be used.
        ModelNotFoundError: for a file or a name that is not there.
        ModelError: for a model that cannot be loaded, and a ``spec`` or ``layers`` that a built-in model does not have.
        ModelContractError: also with ``argmax`` for several kept outputs, and for a formula such as ``mind``.
        ConfigError: for a limit of memory that is too low, and a value of ``spec`` that is unknown or out of range.
        DeviceError: for a device that is unknown or not there.
    """
    options = _options(layers, spec, memory, device, models, on_step)
    volume, weight = prepare(image, None)
    network = load(model, volume.grid.dimension, options)
    if argmax:
        return (labels_of(volume, weight, network, options),)
    found = list(layers_of(volume, weight, runner_of(network, options), options))
    moved = sum(len(layer.features.data) for layer in found if layer.grid != volume.grid)
    _check_room(4 * moved * volume.grid.voxels, options)
    outputs = []
    while found:  # one after the other, so that layers make room
        outputs.append(_brought(found.pop(0).features, volume.grid))
    return tuple(outputs)


def prepare(image: Any, mask: Any | None) -> tuple[Volume, Volume | None]:
    """The image without voxels that are not finite, and the weight of its voxels, None if all count."""
    return clean(to_volume(image), None if mask is None else to_volume(mask), "given")


def load(model: Any, dimension: int, options: Options) -> Descriptor | Network:
    """The model that ``model`` stands for, for an image of ``dimension``, on the device of ``options``."""
    choice = Choice(spec=options.spec, layers=options.layers, folders=options.folders, dimension=dimension)
    return resolve_model(model, choice, choose_device(options.device))


def load_checked(model: str | Path, options: Options) -> tuple[Network, torch.device]:
    """The network in a file or of a name from the catalogue, and its device; ModelError for what is built in."""
    device = choose_device(options.device)
    if str(model) in DESCRIPTORS:
        raise ModelError(f"expected the file of a network or its name, got {model}, which is built in: nothing to load")
    return load(model, 3, options), device  # type: ignore[return-value]


def runner_of(model: Descriptor | Network, options: Options) -> Descriptor | Extractor:
    """What runs a loaded network over images, and keeps what was measured of it; a formula is its own."""
    if isinstance(model.spec, DescriptorSpec):
        return model
    device = choose_device(options.device)
    return Extractor(model, device=device, memory=options.memory, on_step=options.on_step)


def layers_of(
    volume: Volume, weight: Volume | None, model: Descriptor | Extractor, options: Options
) -> tuple[Layer, ...]:
    """The layers of a model that is ready to run, on the CPU."""
    if isinstance(model, Extractor):
        return model.layers(volume, weight)
    _check_room(4 * model.spec.channels * volume.grid.voxels, options)
    layer = describe(volume, model, weight=weight, device=choose_device(options.device))
    return (Layer(_on_cpu(layer.features), None if layer.weight is None else _on_cpu(layer.weight)),)


def reach_of(model: Descriptor | Extractor, dimension: int, tiles: int) -> list[int | None] | None:
    """Voxels a side that the outputs see along each tensor axis of the model, None in it for the whole image.

    None where the run over an image of ``dimension`` in so many ``tiles`` did not have to measure it.
    """
    if not isinstance(model, Extractor) or model.spec.dimension != dimension:
        return None
    traits = model.traits
    shifted = any(max(output.stride) > 1 or any(output.grown) for output in traits.outputs)
    return list(traits.halo) if tiles > 1 or shifted else None


def labels_of(volume: Volume, weight: Volume | None, model: Descriptor | Network, options: Options) -> Volume:
    """The labels of a loaded network, from its last output where several are kept and ``options`` name none."""
    if isinstance(model.spec, DescriptorSpec):
        raise ModelContractError(
            f"expected a network whose channels are classes, got the formula {model.spec.name}: name a network"
        )
    network = model if options.layers is not None else last_output(model)
    device = choose_device(options.device)
    return segment(volume, network, weight=weight, device=device, memory=options.memory, on_step=options.on_step)


def last_output(network: AnyModel) -> AnyModel:
    """The network with the last of its kept outputs alone; what cannot leave outputs out as it is."""
    keep = getattr(network, "keep", None)
    if keep is None:
        return network
    before, last = getattr(network, "layers", None), keep((-1,))
    several = last.layers[0] != 0 if before is None else len(before) > 1
    if several:
        logger.info("%s has several outputs: the last one is taken", network.spec.name or "the model")
    kept: AnyModel = last
    return kept


def file_of(model: str | Path, folders: Sequence[str | Path] = ()) -> Path | None:
    """The file that a name or a path stands for; None for what is built in. Raises ModelNotFoundError, ModelError."""
    if str(model) in DESCRIPTORS:
        return None
    return Path(model) if is_file_name(model) else locate(str(model), [*folders, default_folder()])


def _options(
    layers: Sequence[int] | int | None,
    spec: Sequence[str] | str,
    memory: int | str | None,
    device: str,
    models: Sequence[str | Path] | str | Path,
    on_step: OnStep | None,
) -> Options:
    """The options, single values as tuples."""
    kept = (layers,) if isinstance(layers, int) else layers
    return Options(
        layers=None if kept is None else tuple(kept),
        spec=(spec,) if isinstance(spec, str) else tuple(spec),
        memory=limit_of(memory),
        device=device,
        folders=folders_of(models),
        on_step=on_step,
    )


def limit_of(memory: int | str | None) -> int | None:
    """A limit of memory in bytes from bytes or text such as ``3GB``. Raises ConfigError."""
    return None if memory is None else parse_bytes(str(memory))


def _check_room(needed: int, options: Options) -> None:
    held = held_bytes()
    if options.memory is not None and held + needed > options.memory:
        raise ConfigError(
            f"expected {(held + needed) / 1e9:.2g} GB of memory for the result on the image's grid, got a limit of "
            f"{options.memory / 1e9:.2g} GB: raise it, keep fewer layers, or use a smaller image"
        )


def _brought(volume: Volume, grid: Grid) -> Volume:
    """The image on another grid, channel by channel: interpolating takes several copies of what it is given."""
    if volume.grid == grid:
        return volume
    result = torch.empty((len(volume.data), *grid.shape))
    for number, channel in enumerate(volume.data):
        result[number] = Volume(channel[None], volume.grid).on(grid).data[0]
    return Volume(result, grid)


def _on_cpu(volume: Volume) -> Volume:
    return Volume(volume.data.to(torch.device("cpu")), volume.grid)
