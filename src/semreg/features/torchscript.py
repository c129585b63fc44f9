"""TorchScript models: loading, and programs shortened to the outputs that are wanted. Knows nothing of images.

A module that returns all its layers in a list holds every one of them until the end. Its graph is rewritten so that the
list has only the wanted ones: the interpreter then frees the others as soon as they were used, and what comes after the
last wanted one is not computed. This needs functions that torch keeps private. Where one is missing, or the graph has a
form that is not understood, the module runs as it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import torch

from semreg.features import signature
from semreg.io.quiet import quiet_readers

PRIVATE = (
    "_jit_pass_constant_propagation",
    "_jit_pass_remove_mutation",
    "_jit_pass_dce",
    "_create_function_from_graph",
)
TENSORS = ("Tensor", "Float")
RETURNED = ("prim::ListConstruct", "prim::TupleConstruct", "prim::DictConstruct")


class ScriptedModel:
    """A TorchScript module as ``networks`` calls it."""

    batch: int | None = None

    def __init__(self, module: Any) -> None:
        """Put ``module`` (a ScriptModule) into evaluation mode; its parameters need no gradients."""
        self.module = module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(requires_grad=False)
        self.parameters = signature.of_schema(module.forward.schema)
        self.size = sum(p.numel() for p in module.parameters())

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the module returns."""
        return self.module(*values, **named)

    def to(self, device: torch.device) -> ScriptedModel:
        """A copy on ``device``."""
        with quiet():
            return ScriptedModel(copy.deepcopy(self.module).to(device))

    def keep(self, layers: Sequence[int], number: int) -> Callable[..., Any] | None:
        """A function with the parameters of the module that returns the outputs ``layers`` only, or None.

        ``number`` is what a parameter for the number of layers is fixed to, so that the branches on it vanish.
        """
        roles = [p.role for p in self.parameters]
        if any(p.keyword for p in self.parameters):
            return None
        fixed: dict[int, Any] = {}
        if "layers" in roles:
            at = roles.index("layers")
            fixed[2 + at] = number if self.parameters[at].plain else torch.tensor([number])
        try:
            with quiet():
                return _shortened(self.module, layers, fixed)
        except (RuntimeError, AttributeError, TypeError):  # a private function is missing or refused this graph
            return None


def load(file: BinaryIO, device: torch.device) -> ScriptedModel:
    """Read an archive of TorchScript onto ``device``, in float32. Raises RuntimeError where it is damaged."""
    with quiet(), quiet_readers():
        return ScriptedModel(torch.jit.load(file, map_location=device).float())  # type: ignore[no-untyped-call]


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warnings that something is deprecated: a file is what it is. Others are given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        yield
    for warning in caught:
        if not issubclass(warning.category, DeprecationWarning | FutureWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _shortened(module: Any, layers: Sequence[int], fixed: dict[int, Any]) -> Callable[..., Any] | None:
    """The frozen module as a function of its inputs with the outputs ``layers``; ``fixed`` inputs are constants."""
    propagate, remove_mutation, eliminate, compiled = (_private(name) for name in PRIVATE)
    graph = torch.jit.freeze(module).graph.copy()
    inputs = list(graph.inputs())
    for index, value in fixed.items():
        constant = graph.insertConstant(value)
        constant.node().moveBefore(next(iter(graph.nodes())))
        inputs[index].replaceAllUsesWith(constant)
    for _ in range(2):  # a list that a branch appends to is known only once the branch is gone
        propagate(graph)
        remove_mutation(graph)
    values = _returned(graph)
    if values is None or inputs[0].uses():
        return None
    kept = [values[layer] for layer in layers]
    graph.eraseOutput(0)
    if not _cut(graph, kept):
        return None
    returned = graph.create("prim::ListConstruct", kept, 1)
    returned.output().setType(torch.ListType(torch.TensorType.get()))
    graph.appendNode(returned)
    graph.registerOutput(returned.output())
    eliminate(graph)
    graph.eraseInput(0)
    graph.lint()
    return cast("Callable[..., Any]", compiled("forward", graph))


def _private(name: str) -> Any:
    return getattr(torch._C, name)  # noqa: SLF001 - see the head of the module


def _returned(graph: Any) -> list[Any] | None:
    """The tensors that a graph returns in one list, tuple or dict which nothing else reads; None for other forms."""
    outputs = list(graph.outputs())
    node = outputs[0].node()
    if len(outputs) != 1 or node.kind() not in RETURNED or len(outputs[0].uses()) != 1:
        return None
    values = list(node.inputs())
    if node.kind() == "prim::DictConstruct":
        values = values[1::2]
    return values if all(str(value.type()).startswith(TENSORS) for value in values) else None


def _cut(graph: Any, wanted: list[Any]) -> bool:
    """Remove the nodes after the last one that makes a wanted value; False if one of them may change such a value."""
    names = {value.debugName() for value in wanted}
    nodes = list(graph.nodes())
    makers = [i for i, node in enumerate(nodes) if names & {value.debugName() for value in node.outputs()}]
    late = nodes[max(makers, default=-1) + 1 :]
    aliases = graph.alias_db()
    for node in late:
        in_place = node.kind().endswith("_") or any(True for _ in node.blocks())
        if in_place and any(aliases.may_contain_alias(a, b) for a in _tensors(node) for b in wanted):
            return False
    for node in reversed(late):
        node.destroy()
    return True


def _tensors(node: Any) -> list[Any]:
    """The tensors that a node, or one in its branches, reads."""
    inside = [inner for block in node.blocks() for inner in block.nodes()]
    own = [value for value in node.inputs() if str(value.type()).startswith(TENSORS)]
    return own + [value for inner in inside for value in _tensors(inner)]
