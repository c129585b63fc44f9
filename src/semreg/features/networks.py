"""Pretrained networks from files and from Python.

Knows nothing of grids and tiles. Only the named file is read; a pickle is never opened, because opening one runs it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from semreg.errors import ConfigError, ModelContractError, ModelError, ModelNotFoundError
from semreg.features import exported, torchscript
from semreg.features.agreement import FAILURES
from semreg.features.contract import ModelSpec, Network
from semreg.features.loaded import LoadedNetwork, Model, PythonModel, device_of, last_line
from semreg.io.digests import sha256_of_open
from semreg.io.ordinary_file import check_file
from semreg.runtime.memory import available_bytes, is_out_of_memory
from semreg.runtime.settings import from_toml

KINDS = ("TorchScript", "torch.export")
"""Files that hold a model."""
CODE = (".py", "pkl", ".json")
MOST_CODE = 1 << 26
"""Bytes of the parts of a model that are no weights, ``CODE``: they are unpacked, parsed and compiled."""
EXPORT = "export the model with torch.jit.script, torch.jit.trace or torch.export, or pass the module in Python"


def load_network(
    path: str | Path, *, spec: ModelSpec | None = None, device: str | torch.device = "cpu"
) -> LoadedNetwork:
    """The network in a file of TorchScript or of ``torch.export``.

    Args:
        path: the file; a pickle is refused, because opening one runs it.
        spec: the description of the network; None: the TOML file beside it, or else the defaults. The input size of an
            exported program with only one becomes ``spec.patch`` where that is not set.
        device: where the network is stored and runs.

    Returns:
        The network, in evaluation mode.

    Raises:
        ModelNotFoundError: for a file that does not exist.
        ModelError: for a file that holds no model, for a pickle, and for another checksum than ``spec.sha256``; all
            before anything in the file runs.
        ModelContractError: for a model that needs more than an image.
    """
    path = check_file(path, "the file of a model", ModelNotFoundError)
    spec = read_spec(path) if spec is None else spec
    spec = spec if spec.name else replace(spec, name=path.stem)
    place = device_of(device)
    model, checksum = open_model(path, spec.sha256, place)
    if isinstance(model, exported.ExportedModel):
        spec = _with_shape(spec, model)
    return LoadedNetwork(spec, place, model, checksum)


def open_model(path: Path, sha256: str | None, device: torch.device) -> tuple[Model, str]:
    """The model in a file, whatever it is for, and the checksum of the file, which is to be ``sha256`` if that is set.

    Raises ModelError before anything in the file runs, and ModelContractError, as ``load_network``.
    """
    try:
        with path.open("rb") as file, torch.inference_mode(mode=False):
            checksum = sha256_of_open(file)
            _check_sum(path, checksum, sha256)
            return _read(path, file, device), checksum
    except OSError as error:
        raise ModelError(f"expected to read a model from {path}: {error.strerror or error}") from error


def read_spec(path: str | Path) -> ModelSpec:
    """The description beside a model file, ``model.toml`` for ``model.pt``; the defaults where there is none.

    Raises ModelError that names the file for a description that cannot be read.
    """
    beside = Path(path).with_suffix(".toml")
    if not beside.exists():
        return ModelSpec()
    try:
        return from_toml(ModelSpec, beside)
    except ConfigError as error:
        raise ModelError(f"{beside}: {error}") from error


def as_network(model: Any, spec: ModelSpec | None = None, device: str | torch.device | None = None) -> Network:
    """A model given in Python as a network: a ``torch.nn.Module``, a ScriptModule, an ExportedProgram, any callable.

    A module is put into evaluation mode and its parameters get no gradients; it is copied only to move it to ``device``
    (None: where it is). ``spec`` None: the module's own attribute ``spec``, if it is one. A ``Network`` is returned as
    it is. Raises ModelError for what cannot be called or moved, and
    ModelContractError for a model that needs more than an image.
    """
    if isinstance(model, LoadedNetwork):
        given = model if spec is None else replace(model, spec=spec)
        return given if device is None else given.to(device)
    own = getattr(model, "spec", None)
    if isinstance(own, ModelSpec) and isinstance(model, Network) and not isinstance(model, torch.nn.Module):
        return model
    spec = spec or (own if isinstance(own, ModelSpec) else ModelSpec())
    wrapped = model_of(model)
    if isinstance(wrapped, exported.ExportedModel):
        spec = _with_shape(spec, wrapped)
    network = LoadedNetwork(spec, _place(model, device), wrapped)
    return network if device is None else network.to(device)


def model_of(model: Any) -> Model:
    """A model given in Python as the package calls it, whatever it is for. Raises ModelError for what is none."""
    if isinstance(model, torch.jit.ScriptModule):
        return torchscript.ScriptedModel(model)
    if isinstance(model, torch.export.ExportedProgram):
        return exported.ExportedModel(model)
    if callable(model):
        return PythonModel(model)
    raise ModelError(f"expected a module, a program or a function as a model, got a {type(model).__name__}")


def _read(path: Path, file: BinaryIO, device: torch.device) -> Model:
    """The model in a file by what is in it, not by its name."""
    kind = kind_of(file)
    if kind not in KINDS:
        raise ModelError(f"expected a model of TorchScript or torch.export, got {path}, which is {kind}: {EXPORT}")
    file.seek(0)
    try:
        return torchscript.load(file, device) if kind == "TorchScript" else exported.load(file, device)
    except ModelError as error:
        raise type(error)(f"{path}: {error}") from error
    except (*FAILURES, EOFError, zipfile.BadZipFile) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"expected a whole model of {kind} for {device}, got {path}, which cannot be read: {last_line(error)}"
        ) from error


def kind_of(file: BinaryIO) -> str:
    """What a file is, in words, from its first bytes and the names in its archive; nothing is unpacked."""
    file.seek(0)
    start = file.read(16)
    if not start:
        return "empty"
    if not start.startswith(b"PK"):
        pickled = start[:1] == b"\x80" and start[1] in range(2, 6)
        return "a pickle, which would run code" if pickled else "something else"
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            _check_sizes(archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OverflowError, UnicodeDecodeError):
        return "truncated or damaged"
    inside = {name.partition("/")[2] for name in names} | set(names)
    if any(name.startswith("models/") for name in inside) or "serialized_exported_program.json" in inside:
        return "torch.export"
    if any(name.startswith("code/") for name in inside) and "constants.pkl" in inside:
        return "TorchScript"
    return "a pickle of torch.save, which would run code" if "data.pkl" in inside else "another archive"


def _check_sizes(entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse an archive that unpacks to more than fits, before anything of it is unpacked (ModelError)."""
    total = sum(entry.file_size for entry in entries)
    if total > available_bytes():
        raise ModelError(
            f"expected a model that fits into memory, got one of {total / 1e9:.3g} GB: use a smaller one, or a machine "
            "with more memory"
        )
    code = sum(entry.file_size for entry in entries if entry.filename.endswith(CODE))
    if code > MOST_CODE:
        raise ModelError(
            f"expected at most {MOST_CODE / 1e6:.0f} MB of code in a model, got {code / 1e6:.4g} MB: export it anew"
        )


def _check_sum(path: Path, found: str, wanted: str | None) -> None:
    if wanted is not None and wanted.lower() != found:
        raise ModelError(f"expected the checksum {wanted} for {path}, got {found}: fetch the model again")


def _with_shape(spec: ModelSpec, model: exported.ExportedModel) -> ModelSpec:
    """The description with the input size that the program fixes; ModelContractError where the two disagree."""
    shape = model.shape
    if shape and (len(shape) != spec.dimension + 2 or shape[1] not in (None, spec.channels)):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ModelContractError(
            f"expected a program for {spec.dimension} dimensions and {spec.channels} channels, as described, "
            f"got one for ({sizes}): set dimension and channels"
        )
    return replace(spec, patch=model.patch) if spec.patch is None else spec


def _place(model: Any, device: str | torch.device | None) -> torch.device:
    """Where the parameters of a model are; a function is where it is asked to be."""
    tensors: Iterator[Any] = iter(())
    if isinstance(model, torch.nn.Module):
        tensors = iter([*model.parameters(), *model.buffers()])
    elif isinstance(model, torch.export.ExportedProgram):
        tensors = iter([*model.state_dict.values(), *model.constants.values()])
    found = next((value.device for value in tensors if isinstance(value, Tensor)), None)
    return found or device_of("cpu" if device is None else device)
