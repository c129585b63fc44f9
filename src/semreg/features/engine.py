"""Runs a network over an image of any size, tile by tile, within a limit of memory. Knows no files and no masks.

What the network is like, ``traits`` measures; how an image is cut, ``tiles`` says; what becomes of the results, a
collector decides (``collect``). Where the receptive field is known the result does not depend on the tiles.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semreg.core.pullback import pullback
from semreg.core.shapes import Channels, Direction, Map, Output, Values
from semreg.errors import ConfigError, ModelContractError
from semreg.features.collect import Collector, Piece
from semreg.features.contract import IntensityStats, Network
from semreg.features.tiles import Axis, Cut, Plan, Span, plan_patches, plan_tiles, window
from semreg.features.traits import Traits
from semreg.runtime.events import OnStep, Step
from semreg.runtime.memory import (
    SHARE,
    available_bytes,
    give_back_memory,
    held_bytes,
    is_out_of_memory,
)

logger = logging.getLogger("semreg")

MARGIN = 0.04
"""Share of the limit that is kept free: allocators round up."""
TILE_BYTES = 16
"""Bytes a voxel of a tile beside those of the network: the tile itself and its copies."""
IMAGE_BYTES = 12
"""Bytes a voxel while an image is brought to the network's voxel size."""
GRAPH = 3
"""A pass that is differentiated holds about so many times as much."""


@dataclass(frozen=True)
class Request:
    """An image as the network is to see it: ``x`` (C, *S), its statistics, its direction matrix (D, D)."""

    x: Channels
    stats: IntensityStats
    direction: Direction


class Engine:
    """One network on one device, what was measured of it, and a limit of memory."""

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device | str = "cpu",
        memory: int | None = None,
        on_step: OnStep | None = None,
        stage: str = "features",
    ) -> None:
        """``memory``: bytes the process (on a GPU: torch there) may hold in all; None: what is available."""
        self.network = network
        self.device = torch.device(device)
        self.memory = memory
        self.traits = Traits(network, self.device)
        self.plan: Plan | None = None
        """How the last image was cut."""
        self._on_step = on_step
        self._stage = stage

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return self.network.spec.name or "the model"

    def check_image(self, voxels: int) -> None:
        """Refuse an image of so many voxels at the network's voxel size that alone exceeds the limit (ConfigError)."""
        needed = held_bytes() + IMAGE_BYTES * voxels
        if self.memory is None or self.device.type != "cpu" or 4 * IMAGE_BYTES * voxels < self.memory:
            return  # a small image is not what exceeds a limit
        if needed > self.memory:
            raise ConfigError(
                f"expected {needed / 1e9:.2g} GB of memory or more to read the image at the voxel size of {self.name}, "
                f"{voxels:.3g} voxels, got a limit of {self.memory / 1e9:.2g} GB: raise it, or set a larger spacing_mm"
            )

    def run(self, request: Request, collector: Collector) -> Plan:
        """All outputs for one image, handed to ``collector``; returns how it was cut.

        Where memory runs out, it goes on with tiles of half the size. Raises ModelContractError, ConfigError where the
        limit of memory is too low, and MemoryError where not even small tiles fit.
        """
        shape = tuple(request.x.shape[1:])
        most = math.inf
        while True:
            plan = self._plan(shape, collector, most)
            try:
                self._run(plan, request, collector)
                self.plan = plan
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or plan.largest < 2:
                    raise
                most = plan.largest / 2
            else:
                return plan
            give_back_memory()
            logger.warning("memory ran out with tiles of %d voxels: trying again with half of that", plan.largest)

    def _plan(self, shape: tuple[int, ...], collector: Collector, most: float, graph: int = 1) -> Plan:
        """The tiles: the whole image if it fits, the patch the network asks for, or what fits; ``most`` voxels each."""
        traits = self.traits
        filled = traits.filled(shape)
        whole = Plan(tuple(_uncut(n) for n in filled))
        fixed = traits.fixed_size is not None

        def room(plan: Plan) -> float:
            return min(most, self._voxels(plan, shape, collector, graph))

        if traits.patch is None or whole.largest == math.prod(traits.fixed_size or ()):
            if room(whole) < whole.largest:  # larger tiles are worth more than a close measurement costs
                traits.measure_memory(room(whole))
            if room(whole) >= whole.largest:
                return whole
        axes = self._axes(filled, collector)
        if traits.patch is not None:
            slices = max(1, int(room(whole) / math.prod(n or 1 for n in traits.patch)))
            patches = plan_patches(axes, [slices if n is None else n for n in traits.patch])
            if patches is not None and room(patches) >= patches.largest:
                return self._told(patches, axes)
            if fixed:
                raise self._no_room(shape, collector, most)
        found = _cut(axes, whole, room)
        if found is None:
            raise self._no_room(shape, collector, most)
        return self._told(found, axes)

    def _no_room(self, shape: tuple[int, ...], collector: Collector, most: float) -> Exception:
        if most < math.inf:
            return MemoryError(f"expected memory for a small tile of {self.name}, there is none: free some")
        return ConfigError(self._too_little(shape, collector))

    def _axes(self, size: Sequence[int], collector: Collector) -> list[Axis]:
        """What cuts must respect: the network's receptive field, and what the collector asks for."""
        traits, axes = self.traits, []
        for axis, (n, halo, align) in enumerate(zip(size, traits.halo, traits.align, strict=True)):
            strides = [output.stride[axis] for output in traits.outputs]
            reach = None if halo is None else halo + collector.margin * max(strides)
            lost = max(
                0, *[stride - 1 - output.slack[axis] for stride, output in zip(strides, traits.outputs, strict=True)]
            )
            step = math.lcm(align, *[stride * collector.multiple for stride in strides])
            axes.append(Axis(n, reach, step, self.network.spec.overlap, lost))
        return axes

    def _told(self, plan: Plan, axes: Sequence[Axis]) -> Plan:
        """The plan, after saying so where its result depends on the tiles."""
        if plan.blended:
            blind = all(axis.halo is None for axis, cut in zip(axes, plan.cuts, strict=True) if cut.blended)
            why = (
                "looks at the whole image (normalises over it, or attends to it)" if blind else "sees beyond its patch"
            )
            logger.warning(
                "%s %s and gets patches of %s voxels, which are blended: the result depends on them; more memory, "
                "or no patch, makes it exact",
                self.name,
                why,
                " × ".join(str(cut.longest) for cut in reversed(plan.cuts)),
            )
        return plan

    def _voxels(self, plan: Plan, shape: tuple[int, ...], collector: Collector, graph: int) -> float:
        """Voxels that a tile may have, beside what the collector holds under ``plan``."""
        share = 1.0 if len(plan.tiles) == 1 else plan.cuts[0].longest / plan.cuts[0].spans[-1].stop
        held = collector.bytes(self.traits.shapes(shape), share, single=len(plan.tiles) == 1, blended=plan.blended)
        room = self._room() - (held if self.device.type == "cpu" else 0) - graph * self.traits.memory.fixed
        return room / self._bytes_per_voxel(graph)

    def _bytes_per_voxel(self, graph: int = 1) -> float:
        return graph * self.traits.memory.per_voxel + TILE_BYTES

    def _room(self) -> float:
        """Bytes that may still be taken on the device."""
        if self.device.type == "cuda":
            held = torch.cuda.memory_allocated(self.device)
            free = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device) - held
        else:
            give_back_memory()
            free, held = available_bytes(), held_bytes()
        return SHARE * free if self.memory is None else min(self.memory * (1 - MARGIN) - held, free)

    def _too_little(self, shape: tuple[int, ...], collector: Collector) -> str:
        traits = self.traits
        results = collector.bytes(traits.shapes(shape), 0.1, single=False, blended=None in traits.halo)
        smallest = [2 * (32 if h is None else h) + 2 * a for h, a in zip(traits.halo, traits.align, strict=True)]
        tile = math.prod(min(n, m) for n, m in zip(smallest, shape, strict=True))
        need = held_bytes() + results + traits.memory.fixed + self._bytes_per_voxel() * tile
        return (
            f"expected about {1.1 * need / 1e9:.2g} GB of memory or more for {self.name} on an image of "
            f"{' × '.join(map(str, shape[::-1]))} voxels, got {(self.memory or self._room()) / 1e9:.2g} GB: raise the "
            "limit, keep fewer layers, or use a smaller image"
        )

    def _run(self, plan: Plan, request: Request, collector: Collector) -> None:
        started = time.perf_counter()
        x = _filled(request.x, [cut.spans[-1].stop for cut in plan.cuts])
        shapes = self.traits.shapes(request.x.shape[1:])
        collector.begin(shapes, blended=plan.blended)
        direction = request.direction.to(self.device)
        for done, tile in enumerate(plan.tiles, start=1):
            part = x[_part(tile)].to(self.device)
            with torch.no_grad():
                results = list(self.network(part[None], request.stats, direction))
            for piece in self._pieces(results, tile, plan, shapes, 0 if plan.blended else collector.margin):
                collector.add(piece)
            del results, part, piece
            if self._on_step is not None:
                self._on_step(
                    Step(
                        stage=self._stage, level=1, levels=1, iteration=done, iterations=len(plan.tiles),
                        value=math.nan, seconds=time.perf_counter() - started,
                    )
                )  # fmt: skip

    def _pieces(
        self,
        results: list[Output],
        tile: tuple[Span, ...],
        plan: Plan,
        shapes: Sequence[tuple[int, ...]],
        margin: int,
        device: torch.device | str = "cpu",
    ) -> list[Piece]:
        """The core of each output of a tile, or the whole with weights where tiles are blended."""
        self._check(results, tile)
        pieces = []
        for layer, (output, shape) in enumerate(zip(self.traits.outputs, shapes, strict=True)):
            inner, start, core, weights = [], [], [], []
            for axis, (span, cut, stride, count) in enumerate(
                zip(tile, plan.cuts, output.stride, shape[1:], strict=True)
            ):
                first = span.first // stride
                offset = span.start // stride
                if cut.blended:
                    last = min(count, offset + output.samples(axis, span.size))
                else:
                    last = count if span.last == cut.spans[-1].stop else min(count, span.last // stride)
                low, high = max(0, first - margin), min(count, last + margin)
                inner.append(slice(low - offset, high - offset))
                start.append(low)
                core.append((first, last))
                line = window(span, cut)[::stride]
                weights.append(F.pad(line[None], (0, high - low), mode="replicate")[0, : high - low])
            part = (slice(None), *inner)
            values = results[layer][0][part].to(device)
            mask = _outer(weights) if plan.blended else None
            complete = _complete(plan, tile, output.stride[0], shape[1])
            pieces.append(Piece(layer, values, tuple(start), tuple(core), mask, complete))
        return pieces

    def _check(self, results: Sequence[Output], tile: tuple[Span, ...]) -> None:
        """Refuse outputs of another number or size than the probes promise (ModelContractError)."""
        outputs = self.traits.outputs
        if len(results) != len(outputs):
            raise ModelContractError(
                f"expected {len(outputs)} outputs of {self.name}, got {len(results)} for a larger input: set patch"
            )
        for number, (y, output) in enumerate(zip(results, outputs, strict=True)):
            expected = tuple(output.samples(axis, span.size) for axis, span in enumerate(tile))
            if tuple(y.shape[2:]) != expected:
                raise ModelContractError(
                    f"expected output {number} of {self.name} with {expected} samples for "
                    f"{tuple(span.size for span in tile)} voxels, got {tuple(y.shape[2:])}: set multiple or patch in "
                    "its description, or leave the output out with layers"
                )

    def whole(self, request: Request) -> list[Map] | None:
        """All outputs (C, *S) of an image in one piece, with their graph, on the device; None where that has no room.

        Raises what ``run`` raises, and ModelContractError where the image has a gradient and no output has one.
        """
        shape = tuple(request.x.shape[1:])
        plan = self._plan(shape, NoCollector(), math.inf, GRAPH)
        if len(plan.tiles) > 1 or plan.blended:
            return None
        (tile,) = plan.tiles
        x = _filled(request.x.to(self.device), [span.size for span in tile])
        results = list(self.network(x[None], request.stats, request.direction.to(self.device)))
        if x.requires_grad and torch.is_grad_enabled() and not any(y.requires_grad for y in results):
            raise self._without_gradient()
        self.plan = plan
        return [piece.values for piece in self._pieces(results, tile, plan, self.traits.shapes(shape), 0, self.device)]

    def pull_back(self, request: Request, gradients: Sequence[Map]) -> Channels:
        """The gradient in the image (C, *S) of a scalar whose gradients in all outputs (C, *S) are given.

        Tile by tile, so only one tile's graph is held. Raises ConfigError where tiles would have to be blended.
        """
        shape = tuple(request.x.shape[1:])
        plan = self._plan(shape, NoCollector(), math.inf, GRAPH)
        if plan.blended:
            raise ConfigError(
                f"expected memory for the whole image and its gradients, because {self.name} cannot be cut: use "
                "the mode static, a smaller image or larger voxels"
            )
        shapes, result = self.traits.shapes(shape), torch.zeros_like(request.x)
        for tile in plan.tiles:
            part = _part(tile)
            x = request.x[part].to(self.device).detach().clone().requires_grad_()
            with torch.enable_grad():
                whole = _filled(x, [span.size for span in tile])
                results = list(self.network(whole[None], request.stats, request.direction.to(self.device)))
                pieces = self._pieces(results, tile, plan, shapes, 0)
            pulls = [gradients[piece.layer][piece.region].to("cpu") for piece in pieces]
            pairs = [(piece.values, pull) for piece, pull in zip(pieces, pulls, strict=True)]
            kept = [pair for pair in pairs if pair[0].requires_grad]
            if not kept:
                raise self._without_gradient()
            (gradient,) = pullback([values for values, _ in kept], [pull for _, pull in kept], [x])
            result[part] += gradient.to(result.device)
        return result

    def _without_gradient(self) -> ModelContractError:
        return ModelContractError(
            f"expected {self.name} to be differentiable in the mode jacobian or in a loss, it has no gradient: use the "
            "mode static, or other layers"
        )


class NoCollector:
    """Keeps nothing."""

    multiple = 1
    margin = 0

    def begin(self, shapes: Sequence[tuple[int, ...]], *, blended: bool) -> None:
        """Nothing to start."""

    def add(self, piece: Piece) -> None:
        """Nothing to take."""

    def bytes(self, shapes: Sequence[tuple[int, ...]], share: float, *, single: bool, blended: bool) -> int:  # noqa: ARG002
        """Nothing is held."""
        return 0


def _cut(axes: Sequence[Axis], whole: Plan, room: Callable[[Plan], float]) -> Plan | None:
    """A plan whose largest tile has the voxels there is room for; that depends a little on the plan."""
    found: Plan | None = whole
    for _ in range(6):
        found = plan_tiles(axes, room(found or whole))
        if found is None or room(found) >= found.largest:
            return found
    return None


def _uncut(size: int) -> Cut:
    return Cut((Span(0, size, 0, size),), blended=False)


def _filled(x: Float[Tensor, "c *_s"], size: Sequence[int]) -> Float[Tensor, "c *_t"]:
    """``x`` (1, *S) continued at the ends of its axes by its border values."""
    if list(x.shape[1:]) == list(size):
        return x
    sides = [side for n, m in zip(reversed(x.shape[1:]), reversed(size), strict=True) for side in (0, m - n)]
    return F.pad(x[None], sides, mode="replicate")[0]


def _part(tile: tuple[Span, ...]) -> tuple[slice, ...]:
    return (slice(None), *[slice(span.start, span.stop) for span in tile])


def _outer(weights: Sequence[Float[Tensor, "_n"]]) -> Values:
    result = weights[0]
    for line in weights[1:]:
        result = result[..., None] * line
    return result


def _complete(plan: Plan, tile: tuple[Span, ...], stride: int, count: int) -> int:
    """Planes of the first axis that no later tile touches."""
    spans = plan.cuts[0].spans
    row = spans.index(tile[0])
    if any(span != cut.spans[-1] for span, cut in zip(tile[1:], plan.cuts[1:], strict=True)):
        return spans[row].first // stride
    return count if row + 1 == len(spans) else spans[row + 1].first // stride
