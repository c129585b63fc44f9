"""Programs of ``torch.export``: loading, and shortening to the outputs that are wanted. Knows nothing of images.

torch reads parts of such a file with pickle, and expressions with ``eval``. What may run code is refused before.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram

from semreg.errors import ModelError
from semreg.features import signature
from semreg.features.torchscript import quiet
from semreg.io.quiet import quiet_readers

TOKEN = re.compile(
    r"""'\w*' | (?:[A-Z]\w*|floor|ceiling)\( | [a-z]\w*=(?=True|False) | True | False | oo | [a-z]+\d+\b |
    \d+(?:\.\d+)? | \)(?!\s*\() | \( | [\s+\-*/%,<>]""",
    re.VERBOSE,
)
"""What sizes are written with: ``Max(Integer(1), Add(Symbol('s0', positive=True), Integer(-2)))``, ``2*s0``."""


class ExportedModel:
    """An exported program as ``networks`` calls it."""

    def __init__(self, program: ExportedProgram) -> None:
        """Unpack the program; its parameters need no gradients."""
        self.program = program
        self.module = _frozen(program.module())
        names = program.graph_signature.user_inputs
        self.parameters = signature.of_names(str(name) for name in names)
        self.size = sum(p.numel() for p in self.module.parameters())
        self.shape = _shape(program, str(names[0]) if names else "")
        self.batch = self.shape[0] if self.shape else None
        """Number of images that it takes at once, None for any number."""

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the program returns."""
        return self.module(*values, **named)

    def to(self, device: torch.device) -> ExportedModel:
        """A copy on ``device``."""
        from torch.export.passes import move_to_device_pass

        with quiet():
            return ExportedModel(move_to_device_pass(copy.deepcopy(self.program), device))

    def keep(self, layers: Sequence[int], number: int) -> Callable[..., Any] | None:  # noqa: ARG002 - it is in the graph
        """A module that computes and returns the outputs ``layers`` only, or None if it does not return a flat list."""
        short = _frozen(self.program.module())
        output = next(node for node in short.graph.nodes if node.op == "output")
        returned = output.args[0]
        if isinstance(returned, torch.fx.Node) and returned.op == "call_function":  # the tree of the outputs is built
            returned = returned.args[0]
        codegen: Any = getattr(short.graph, "_codegen", None)
        info = getattr(codegen, "pytree_info", None)
        if not isinstance(returned, (list, tuple)) or info is None:
            return None
        output.args = ([returned[layer] for layer in layers],)
        codegen.pytree_info = info._replace(out_spec=pytree.tree_structure([0] * len(layers)))
        short.graph.eliminate_dead_code()
        short.recompile()
        return cast("Callable[..., Any]", short)

    @property
    def patch(self) -> tuple[int, ...] | None:
        """The only input size in voxels that the program takes, None if it takes several."""
        sizes = self.shape[2:] if self.shape else ()
        fixed = tuple(size for size in sizes if size is not None)
        return fixed if sizes and len(fixed) == len(sizes) else None


def load(file: BinaryIO, device: torch.device) -> ExportedModel:
    """Read a program saved by ``torch.export.save`` onto ``device``.

    Raises ModelError where parts of it might run code, RuntimeError, ValueError or KeyError where it is damaged.
    """
    refuse_code(file)
    file.seek(0)
    with quiet_readers():  # torch logs what it raises
        model = ExportedModel(torch.export.load(file))
    return model if device.type == "cpu" else model.to(device)


def refuse_code(file: BinaryIO) -> None:
    """Raise ModelError if the archive has compiled code, pickled objects other than tensors, or calls in its sizes."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickled = _pickled(archive, names)
        for name in names:
            folder, _, leaf = name.rpartition("/")
            if "aotinductor" in folder.split("/") or leaf.startswith(("custom_obj", "opaque_obj")):
                raise ModelError(f"expected a program of torch.export with tensors only, got one with {name}")
            if leaf.endswith(".pt") or name in pickled:
                _require_tensors(archive.read(name), name)
            elif leaf.endswith(".json"):
                for text in _expressions(json.loads(archive.read(name))):
                    if TOKEN.sub("", text):
                        raise ModelError(f"expected sizes such as 2*s0 + 1 in {name}, got {text[:80]!r}")


def _frozen(module: Any) -> Any:
    """No gradients for its parameters; an exported module is in the mode in which it was exported."""
    for parameter in module.parameters():
        parameter.requires_grad_(requires_grad=False)
    return module


def _shape(program: ExportedProgram, image: str) -> list[int | None]:
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name == image and isinstance(node.meta.get("val"), torch.Tensor):
            return [size if isinstance(size, int) else None for size in node.meta["val"].shape]
    return []


def _pickled(archive: zipfile.ZipFile, names: list[str]) -> set[str]:
    """Weights and constants that are stored as pickles."""
    found = set()
    for name in names:
        folder, _, leaf = name.rpartition("/")
        if leaf.endswith("_config.json"):
            entries = json.loads(archive.read(name)).get("config", {}).values()
            found |= {f"{folder}/{entry['path_name']}" for entry in entries if entry.get("use_pickle")}
    return found


def _require_tensors(data: bytes, name: str) -> None:
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"expected a program of torch.export with tensors only, got other objects in {name}"
        ) from error


def _expressions(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "expr_str" and isinstance(value, str):
                yield value
            else:
                yield from _expressions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)
