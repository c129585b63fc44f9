"""Networks over volumes: the same result whatever the tiles and the memory, and whole images where needed."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import noise
from semreg.errors import ConfigError
from semreg.features.collect import Maps
from semreg.features.contract import IntensityStats, ModelSpec
from semreg.features.engine import Engine, Request
from semreg.features.networks import as_network
from semreg.features.slices import SliceNetwork
from semreg.runtime import memory
from small_networks import seeded

STATS = IntensityStats(-3.0, 3.0, 0.0, 1.0)
EXACT = 1e-4
"""Share of the range of an output that tiles may differ by."""


def conv(*arguments, **options):
    return nn.Conv3d(*arguments, **options)


def dilated():
    """Three convolutions, 11 voxels a side."""
    return seeded(
        conv(1, 3, 3, padding=2, dilation=2), nn.LeakyReLU(), conv(3, 3, 3, padding=5, dilation=5), nn.LeakyReLU(),
        conv(3, 2, 3, padding=4, dilation=4),
    )  # fmt: skip


class Pyramid(nn.Module):
    """Maximum pooling twice, a convolution at each level, and back up with what was there before: multiple 4."""

    def __init__(self) -> None:
        """Few channels."""
        super().__init__()
        self.a, self.b, self.c = (
            seeded(conv(1, 2, 3, padding=1)), seeded(conv(2, 3, 3, padding=1)), seeded(conv(3, 3, 3, padding=1)),
        )  # fmt: skip
        self.d = seeded(conv(8, 2, 3, padding=1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Full, half, quarter and decoded."""
        a = torch.relu(self.a(x))
        b = torch.relu(self.b(F.max_pool3d(a, 2)))
        c = torch.relu(self.c(F.max_pool3d(b, 2)))
        up = [F.interpolate(b, scale_factor=2), F.interpolate(c, scale_factor=4, mode="trilinear")]
        return [a, b, c, self.d(torch.cat([a, *up], 1))]


NETWORKS = {
    "dilated": dilated,
    "strided": lambda: seeded(conv(1, 3, 3, 2, 1), nn.LeakyReLU(), conv(3, 3, 3, 2, 1), nn.LeakyReLU(), conv(3, 2, 1)),
    "pyramid": Pyramid,
    "valid": lambda: seeded(conv(1, 3, 3), nn.LeakyReLU(), conv(3, 2, 5, dilation=2)),
    "larger": lambda: seeded(nn.ReplicationPad3d(2), conv(1, 2, 3), conv(2, 2, 3, padding=1)),
    "anisotropic": lambda: seeded(
        conv(1, 3, (1, 3, 5), (1, 2, 1), (0, 1, 2)), nn.ReLU(), conv(3, 2, (3, 1, 3), (3, 1, 2))
    ),
    "patches": lambda: seeded(conv(1, 4, 4, 4), nn.GELU(), conv(4, 2, 3, padding=1)),
    "doubled": lambda: seeded(conv(1, 2, 3, padding=1), nn.AvgPool3d(4), nn.Upsample(scale_factor=2)),
    "reflected": lambda: seeded(conv(1, 2, 5, padding=2, padding_mode="reflect"), conv(2, 2, 3, padding=1)),
}


def run(module, x, *, collector=None, options=None, **spec):
    """All maps and the plan, for one image (1, *S)."""
    engine = Engine(as_network(module, ModelSpec(**spec)), **(options or {}))
    collector = collector or Maps()
    plan = engine.run(Request(x, STATS, torch.eye(x.ndim - 1)), collector)
    return collector.finish(), plan


def difference(a, b):
    """The largest difference of two lists of maps, as a share of the range."""
    assert [y.shape for y in a] == [y.shape for y in b]
    return max(float((y - z).abs().max() / (z.max() - z.min())) for y, z in zip(a, b, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_do_not_show(name, caplog):
    """Whatever the patch, every output is that of the whole image everywhere, borders included, and nothing is said."""
    module, x = NETWORKS[name](), noise(1, 43, 34, 40, dtype=torch.float32)  # odd, even, and a multiple of 8
    whole, plan = run(module, x)
    assert len(plan.tiles) == 1
    for patch in (32, 36):
        tiled, plan = run(module, x, patch=(patch,))
        assert len(plan.tiles) > 1
        assert not plan.blended
        assert difference(tiled, whole) < EXACT
    assert not caplog.records


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_images_are_what_the_network_gives(name):
    """An image that fits and has a size the network takes is handed to it as it is; so are its outputs."""
    module, x = NETWORKS[name](), noise(1, 44, 28, 20, dtype=torch.float32)
    with torch.no_grad():
        expected = module(x[None])
    expected = expected if isinstance(expected, list) else [expected]
    found, _ = run(module, x)
    assert difference(found, [y[0] for y in expected]) == 0


def test_sizes_that_do_not_fit_are_filled():
    """An image of another size than the network takes is continued by its border; outputs end with it."""
    x = noise(1, 21, 18, 23, dtype=torch.float32)
    found, _ = run(Pyramid(), x)
    filled = F.pad(x[None], (0, 1, 0, 2, 0, 3), mode="replicate")
    with torch.no_grad():
        expected = [y[0] for y in Pyramid()(filled)]
    assert [tuple(y.shape[1:]) for y in found] == [(21, 18, 23), (11, 9, 12), (6, 5, 6), (21, 18, 23)]
    for y, z in zip(found, expected, strict=True):
        assert torch.equal(y, z[(slice(None), *[slice(n) for n in y.shape[1:]])])


def test_an_understated_receptive_field_shows():
    """The comparison sees it where tiles overlap too little: stated as 2 voxels, 11 needed."""
    x = noise(1, 70, 30, 28, dtype=torch.float32)
    whole, _ = run(dilated(), x)
    wrong, plan = run(dilated(), x, patch=(36,), receptive_field=(2,))
    assert not plan.blended
    assert difference(wrong, whole) > EXACT
    right, _ = run(dilated(), x, patch=(36,), receptive_field=(11,))
    assert difference(right, whole) < EXACT


def test_large_tiles_do_not_show():
    """Patches of 48, 64 and 96 voxels, and the whole image, give one result on an image of 104 × 100 × 96 voxels."""
    x = noise(1, 96, 100, 104, dtype=torch.float32)
    module = seeded(conv(1, 2, 3, padding=2, dilation=2), nn.LeakyReLU(), conv(2, 1, 3, padding=8, dilation=8))
    whole, _ = run(module, x)
    for patch in (48, 64, 96):
        tiled, plan = run(module, x, patch=(patch,))
        assert max(cut.longest for cut in plan.cuts) <= patch < 100
        assert difference(tiled, whole) < EXACT


def needed(engine, x, share):
    """A limit of memory that leaves room for a share of the network's needs for the whole image."""
    traits = engine.traits
    traits.measure_memory(1e9)
    _ = traits.halo
    whole = traits.memory.fixed + (traits.memory.per_voxel + 16) * x.numel()
    results = sum(4 * torch.Size(shape).numel() for shape in traits.shapes(x.shape[1:]))
    memory.give_back_memory()
    return int((memory.held_bytes() + results + share * whole) / 0.96)


@pytest.mark.parametrize("name", ["dilated", "pyramid"])
def test_tiles_that_memory_asks_for_do_not_show(name):
    """With memory for a part of the image it is cut, by the limit alone; the result is that of the whole."""
    module, x = NETWORKS[name](), noise(1, 90, 60, 64, dtype=torch.float32)
    whole, _ = run(module, x)
    network = as_network(module)
    engine = Engine(network)
    memory.give_back_memory()
    engine.memory = needed(engine, x, 0.5)
    collector = Maps()
    plan = engine.run(Request(x, STATS, torch.eye(3)), collector)
    assert len(plan.tiles) > 1
    assert not plan.blended
    assert difference(collector.finish(), whole) < EXACT


SCRIPT = """
import sys
import torch
from torch import nn
from semreg.features.extract import extract_layers
from semreg.features.networks import as_network
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.runtime.memory import held_bytes, peak_bytes

torch.set_num_threads(1)
module = nn.Sequential(nn.Conv3d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv3d(32, 32, 1), nn.ReLU(), nn.Conv3d(32, 2, 1))
volume = Volume(torch.rand(1, 96, 96, 96), Grid.of_shape((96, 96, 96)))
limit = held_bytes() + 150_000_000
(layer,) = extract_layers(volume, as_network(module), memory=limit)
print(peak_bytes() - limit, tuple(layer.features.data.shape))
"""


def test_a_limit_of_memory_is_kept():
    """A process that may take 150 MB more stays below that, where the whole image would take twice as much."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    over, shape = done.stdout.split(maxsplit=1)
    assert 2 * 32 * 4 * 96**3 + 96**3 * 8 > 0.15e9 * 1.5  # two layers of 32 channels
    assert int(over) < 0
    assert shape.strip() == "(2, 96, 96, 96)"


def test_too_little_memory_is_told():
    """A limit in which not even a small tile fits is an error that says how much is needed, and that much suffices."""
    x = noise(1, 40, 44, 48, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"got 0\.001 GB: raise the limit, keep fewer layers") as caught:
        run(dilated(), x, options={"memory": 1_000_000})
    amount = float(re.search(r"about (\S+) GB", str(caught.value)).group(1))
    _, plan = run(dilated(), x, options={"memory": int(1.05 * amount * 1e9)})  # two digits are rounded
    assert plan.computed >= x.numel()


class Limited(nn.Module):
    """A network that runs out of memory for more than some voxels."""

    def __init__(self, inner: nn.Module, most: int, error: Exception) -> None:
        """``error`` is what it raises."""
        super().__init__()
        self.inner, self.most, self.error = inner, most, error

    def forward(self, x: Tensor) -> Tensor:
        """What the inner network returns."""
        if x.shape[2:].numel() > self.most:
            raise self.error
        return self.inner(x)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_it_goes_on_where_memory_runs_out(error, caplog):
    """Whoever says that memory ran out, tiles are halved until they fit; the log says so."""
    x = noise(1, 64, 40, 44, dtype=torch.float32)
    whole, _ = run(dilated(), x)
    found, plan = run(Limited(dilated(), 55_000, error), x)
    assert plan.largest <= 55_000
    assert difference(found, whole) < EXACT
    assert "memory ran out with tiles of 112640 voxels: trying again with half of that" in caplog.text


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("patch", [None, (40,)])
def test_no_memory_at_all_ends(error, patch):
    """Where not even small tiles fit it ends with a MemoryError, with and without a patch."""
    x = noise(1, 64, 40, 44, dtype=torch.float32)
    with pytest.raises(MemoryError, match="expected memory for a small tile of the model"):
        run(Limited(dilated(), 23**3 - 1, error), x, receptive_field=(11,), patch=patch)


class FixedSize(nn.Module):
    """Takes one size only; for that it is the identity."""

    def __init__(self, *size: int) -> None:
        """``size`` per axis."""
        super().__init__()
        self.size = size
        self.register_buffer("zeros", torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        return x + self.zeros


def test_no_memory_for_the_only_size_ends():
    """A network of one size whose patch does not fit ends too: there is nothing to halve."""
    network = as_network(FixedSize(16, 16, 16), ModelSpec(patch=(16,)))
    engine = Engine(network)
    _ = engine.traits.halo, engine.traits.memory
    network.model.function.forward = lambda _: (_ for _ in ()).throw(MemoryError())
    with pytest.raises(MemoryError, match="expected memory for a small tile"):
        engine.run(Request(noise(1, 20, 30, 40, dtype=torch.float32), STATS, torch.eye(3)), Maps())


def test_a_limit_below_the_only_size_is_told():
    """A limit of memory is kept for networks of one size too: too low, it is an error."""
    x = noise(1, 20, 30, 40, dtype=torch.float32)
    with pytest.raises(ConfigError, match="raise the limit"):
        run(FixedSize(16, 16, 16), x, patch=(16,), options={"memory": 1_000_000})


@pytest.mark.parametrize("shape", [(20, 30, 41), (16, 24, 20), (10, 12, 50), (5, 6, 7)])
def test_a_network_of_one_size_gets_that_size(shape, caplog):
    """It is run patch by patch, half overlapped, or over an image filled up to its size, and weights sum to 1."""
    x = noise(1, *shape, dtype=torch.float32)
    (found,), plan = run(FixedSize(16, 24, 20), x, patch=(16, 24, 20))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-5)
    assert [cut.longest for cut in plan.cuts] == [16, 24, 20]
    for cut in plan.cuts:
        shared = [a.stop - b.start for a, b in zip(cut.spans, cut.spans[1:], strict=False)]
        assert all(n >= cut.longest // 2 for n in shared)
    assert bool(caplog.records) == plan.blended


def test_strides_of_a_network_of_one_size():
    """Patches of a network of one size start where its strides allow, so that its samples keep their places."""
    module = FixedSize(16, 16, 16)
    x = noise(1, 21, 30, 27, dtype=torch.float32)
    (found,), plan = run(lambda x: F.avg_pool3d(module(x), 4), x, patch=(16,))
    assert plan.blended
    expected = F.avg_pool3d(F.pad(x[None], (0, 1, 0, 2, 0, 3), mode="replicate"), 4)[0]
    assert found.shape == expected.shape == (1, 6, 8, 7)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


BLIND = {
    "instance": lambda: seeded(conv(1, 3, 3, padding=1), nn.InstanceNorm3d(3)),
    "group": lambda: nn.Sequential(seeded(conv(1, 4, 3, padding=1)), nn.GroupNorm(2, 4)),
    "strided": lambda: seeded(conv(1, 3, 3, 2, 1), nn.InstanceNorm3d(3)),
}


@pytest.mark.parametrize("name", BLIND)
def test_whole_images_where_everything_counts(name, caplog):
    """A network that normalises over the image gets the whole of it while memory allows, and nothing is said."""
    x = noise(1, 33, 28, 30, dtype=torch.float32)
    (found,), plan = run(BLIND[name](), x)
    assert len(plan.tiles) == 1
    with torch.no_grad():
        assert torch.equal(found, BLIND[name]()(x[None])[0])
    assert not caplog.records


@pytest.mark.parametrize("name", BLIND)
def test_blending_is_told(name, caplog):
    """Where memory does not allow the whole image, patches are blended, and the log names it and what helps."""
    x = noise(1, 63, 48, 50, dtype=torch.float32)
    whole, _ = run(BLIND[name](), x)
    engine = Engine(as_network(BLIND[name](), ModelSpec(name="blind")))
    engine.memory = needed(engine, x, 0.6)
    collector = Maps()
    with caplog.at_level(logging.WARNING, "semreg"):
        plan = engine.run(Request(x, STATS, torch.eye(3)), collector)
    assert plan.blended
    message = caplog.messages[-1]
    assert "blind looks at the whole image" in message
    assert "which are blended: the result depends on them; more memory, or no patch, makes it exact" in message
    found = collector.finish()
    assert EXACT < difference(found, whole) < 0.4  # statistics of noise hardly depend on the patch


class Constant(nn.Module):
    """Returns one number everywhere, but looks at everything."""

    def __init__(self, inner: nn.Module) -> None:
        """``inner`` gives the shape."""
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """3.5 + 0 x."""
        y = self.inner(x)
        return 3.5 + 1e-12 * (y - y.mean())


@pytest.mark.parametrize(
    ("name", "overlap"),
    [("dilated", 0.0), ("strided", 0.5), ("valid", 0.0), ("larger", 0.5), ("patches", 0.0), ("pyramid", 0.8)],
)
def test_blended_weights_sum_to_one(name, overlap):
    """A network that returns a constant gives that constant, in every overlap, stride and growth: there are no gaps."""
    inner = Last() if name == "pyramid" else NETWORKS[name]()
    (found,), plan = run(
        Constant(inner), noise(1, 35, 29, 30, dtype=torch.float32), patch=(24, 16, 20), overlap=overlap
    )
    assert plan.blended
    torch.testing.assert_close(found, torch.full_like(found, 3.5), rtol=0, atol=1e-5)


class Last(Pyramid):
    """The decoded output alone."""

    def forward(self, x: Tensor) -> Tensor:
        """The last one."""
        return super().forward(x)[-1]


@pytest.mark.parametrize("kind", ["identity", "halved", "valid", "larger"])
def test_blended_samples_keep_their_places(kind):
    """A network that copies or averages gives the same blended as whole: no sample is moved by its patch."""
    copies = {
        "identity": lambda x: x,
        "halved": lambda x: F.avg_pool3d(x, 2),
        "valid": lambda x: x[:, :, 3:-3, 3:-3, 3:-3],
        "larger": lambda x: F.pad(x, (1,) * 6, mode="replicate"),
    }
    inner = copies[kind]

    def network(x):
        return inner(x) + 1e-12 * x.mean()

    x = noise(1, 43, 37, 51, dtype=torch.float32)
    (found,), plan = run(network, x, patch=(24, 18, 20))
    assert plan.blended
    expected = inner(x[None])[0]
    if kind == "larger":  # the border of a patch is no border of the image
        found, expected = found[:, 1:-1, 1:-1, 1:-1], expected[:, 1:-1, 1:-1, 1:-1]
        weight = (found - expected).abs() < 1e-5
        assert weight.float().mean() > 0.5
        return
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_steps_are_told():
    """One step a tile, counted from 1 to the number of tiles."""
    steps = []
    _, plan = run(dilated(), noise(1, 60, 40, 30, dtype=torch.float32), patch=(40,), options={"on_step": steps.append})
    assert [step.iteration for step in steps] == list(range(1, len(plan.tiles) + 1))
    assert {step.iterations for step in steps} == {len(plan.tiles)}


def test_slices_are_cut_too():
    """Volumes of pictures are cut across the slices without an overlap, and give the same."""
    module = seeded(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.Conv2d(2, 2, 3, 2, 1))
    x = noise(1, 30, 37, 33, dtype=torch.float32)
    maps = []
    for patch in (None, (20,)):
        engine = Engine(SliceNetwork(as_network(module, ModelSpec(dimension=2, patch=patch)), 1))
        collector = Maps()
        plan = engine.run(Request(x, STATS, torch.eye(3)), collector)
        maps.append(collector.finish())
    assert len(plan.tiles) > 1
    assert not plan.blended
    assert maps[0][0].shape == (2, 15, 37, 17)
    assert difference(*maps) < EXACT
