"""What is measured of a network against what its layers say: sizes, places of outputs, receptive field, memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from semreg.errors import ModelContractError
from semreg.features import probe, reach
from semreg.features.contract import ModelSpec
from semreg.features.networks import as_network, load_network
from semreg.features.slices import SliceNetwork
from semreg.features.tensor_memory import TensorTally
from semreg.features.traits import Traits
from small_networks import seeded

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
real = pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of real models, ../shared/data/models, is not here")
CPU = torch.device("cpu")


def convolutions(kernels, dilations=None, strides=None, padding="zeros"):
    """A stack of 3-D convolutions of about the input's size, each followed by an activation."""
    layers, channels = [], 1
    for i, kernel in enumerate(kernels):
        dilation = dilations[i] if dilations else 1
        pads = kernel // 2 * dilation if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
        stride = strides[i] if strides else 1
        layers += [
            nn.Conv3d(channels, 3, kernel, stride, padding=pads, dilation=dilation, padding_mode=padding),
            nn.LeakyReLU(),
        ]
        channels = 3
    return seeded(*layers)


def traits_of(module, **spec):
    return Traits(as_network(module, ModelSpec(**spec)), CPU)


class Branches(nn.Module):
    """Outputs at full, half and quarter resolution and one decoded from the last, as U-Nets give them."""

    def __init__(self, norm: bool = False) -> None:
        """Two convolutions of stride 2; ``norm``: with instance normalisation."""
        super().__init__()
        make = (lambda: nn.InstanceNorm3d(4)) if norm else nn.Identity
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.a = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), make(), nn.LeakyReLU())
            self.b = nn.Sequential(nn.Conv3d(4, 4, 3, 2, padding=1), make(), nn.LeakyReLU())
            self.c = nn.Sequential(nn.Conv3d(4, 4, 3, 2, padding=1), make(), nn.LeakyReLU())
            self.up = nn.ConvTranspose3d(4, 4, 4, 4)
            self.d = nn.Conv3d(8, 2, 3, padding=1)
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encoder and decoder."""
        a = self.a(x)
        b = self.b(a)
        c = self.c(b)
        return [a, b, c, self.d(torch.cat([a, self.up(c)], 1))]


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4), (3, 1, 5), (8, 8, 7), (16, 16)])
def test_receptive_field_of_dilated_stacks(dilations):
    """Of convolutions of kernel 3 and no strides it is the sum of the dilations, also beyond the first probe."""
    traits = traits_of(convolutions([3] * len(dilations), dilations))
    assert traits.halo == (sum(dilations),) * 3
    assert traits.align == (1, 1, 1)
    (output,) = traits.outputs
    assert (output.channels, output.stride, output.offset, output.grown) == (3, (1,) * 3, (0.0,) * 3, (0,) * 3)


def test_axes_are_measured_one_by_one():
    """Kernels and strides that differ by axis give receptive fields and strides that do."""
    kernels, strides = [(1, 3, 5), (3, 3, 3)], [(1, 2, 1), (1, 1, 2)]
    traits = traits_of(convolutions(kernels, strides=strides))
    assert traits.halo == (1, 1 + 2, 2 + 1)
    assert traits.outputs[0].stride == (1, 2, 2)
    assert traits.outputs[0].offset == (0.0, 0.0, 0.0)
    assert traits.align == (1, 2, 2)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "offset"),
    [(2, 2, 0, 0.5), (3, 2, 1, 0.0), (4, 4, 0, 1.5), (7, 4, 3, 0.0), (5, 2, 0, 2.0), (3, 3, 1, 0.0), (1, 2, 0, 0.0)],
)
def test_samples_of_strided_outputs(kernel, stride, padding, offset):
    """Sample i lies at the centre of its kernel, and for any size there are as many as the formula says."""
    module = seeded(nn.Conv3d(1, 2, kernel, stride, padding))
    (output,) = traits_of(module).outputs
    assert output.stride == (stride,) * 3
    assert output.offset == (offset,) * 3
    for size in range(9, 40):
        assert output.samples(0, size) == (size + 2 * padding - kernel) // stride + 1


def test_samples_of_strides_in_a_row():
    """Any sequence of strided convolutions and pools has its samples counted right for every size."""
    for first, second in itertools.product([(3, 2, 1), (2, 2, 0), (5, 3, 1)], repeat=2):
        module = seeded(nn.Conv2d(1, 2, *first), nn.MaxPool2d(*second))
        (output,) = traits_of(module, dimension=2).outputs
        for size in (17, 18, 19, 20, 21, 22, 23, 24, 40):
            assert module(torch.zeros(1, 1, size, 17)).shape[2] == output.samples(0, size)


@pytest.mark.parametrize(("padding", "offset", "grown"), [(0, 3.0, -6), (3, 0.0, 0), (4, -1.0, 2), (5, -2.0, 4)])
def test_outputs_that_are_larger_or_smaller(padding, offset, grown):
    """Without padding an output begins further inside, with more padding before the image."""
    (output,) = traits_of(seeded(nn.Conv3d(1, 2, 7, padding=padding))).outputs
    assert (output.offset, output.grown) == ((offset,) * 3, (grown,) * 3)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_multiples_of_encoder_and_decoder(factor):
    """A network whose decoder meets its encoder again takes only multiples of its strides: they are found."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = convolutions([3])

        def forward(self, x):
            y = nn.functional.max_pool3d(self.inner(x), factor)
            return nn.functional.interpolate(y, scale_factor=float(factor)) + x

    traits = traits_of(Net())
    assert traits.align == (factor,) * 3
    assert traits.filled((17, 30, 33)) == tuple(-(-n // factor) * factor for n in (17, 30, 33))
    assert traits.halo[0] <= 2 * factor  # a block, the convolution, and half a block of doubt
    assert traits.outputs[0].offset == (0.0,) * 3


def test_samples_that_come_in_pairs():
    """Pooled by 4 and doubled again, samples come two by two: sizes are multiples of 4, so that none is unforeseen."""
    traits = traits_of(seeded(nn.Conv3d(1, 2, 3, padding=1), nn.AvgPool3d(4), nn.Upsample(scale_factor=2)))
    assert traits.filled((17, 30, 33)) == (20, 32, 36)
    (output,) = traits.outputs
    assert (output.stride, output.offset) == ((2,) * 3, (0.5,) * 3)  # halves of blocks, about their centres at 1.5


def test_places_of_outputs_of_several_strides():
    """An encoder of kernels 3 and strides 2 samples every second voxel, from the first one on; so its decoder ends."""
    traits = traits_of(Branches())
    assert [output.stride[0] for output in traits.outputs] == [1, 2, 4, 1]
    assert [output.offset for output in traits.outputs] == [(0.0,) * 3] * 4
    assert traits.align == (4, 4, 4)


def test_places_where_everything_is_normalised():
    """Instance normalisation lets every sample see the whole image; where it lies is still found."""
    traits = traits_of(Branches(norm=True))
    assert traits.halo == (None, None, None)
    assert [output.stride[0] for output in traits.outputs] == [1, 2, 4, 1]
    assert [output.offset for output in traits.outputs] == [(0.0,) * 3] * 4


@pytest.mark.parametrize(
    "layer",
    [
        nn.InstanceNorm3d(3),
        nn.GroupNorm(1, 3),
        nn.Sequential(nn.Flatten(2), nn.Softmax(2), nn.Unflatten(2, (-1, 9, 9))),
    ],
)
def test_what_looks_at_everything_has_no_reach(layer):
    """Normalisation over the image, and a softmax over all positions, reach everywhere: no halo is enough."""
    found = reach.measure_reach(
        as_network(seeded(nn.Conv3d(1, 3, 3, padding=1), nn.Identity()).append(layer)),
        [probe.OutputTraits(3, (1,) * 3, (0.0,) * 3, (0,) * 3)],
        1,
        (9, 9, 9),
        0,
        CPU,
    )
    assert found.voxels is None


def test_stated_receptive_field_is_believed():
    """What the description states is taken, and places of outputs are measured all the same."""
    traits = traits_of(convolutions([3, 3], strides=[1, 2]), receptive_field=(9, 5, 4))
    assert traits.halo == (9, 5, 4)
    assert traits.outputs[0].offset == (0.0,) * 3


class FixedSize(nn.Module):
    """Adds an embedding to every place, so it takes one size only."""

    def __init__(self, *size: int) -> None:
        """``size`` per axis."""
        super().__init__()
        self.register_buffer("embedding", torch.linspace(0, 1, torch.Size(size).numel()).reshape(size))

    def forward(self, x: Tensor) -> Tensor:
        """One channel."""
        return x + self.embedding


def test_one_size_only():
    """A network that takes its patch and nothing else is seen to; one that takes others is not."""
    fixed = traits_of(FixedSize(16, 12, 20), patch=(16, 12, 20))
    assert fixed.fixed_size == (16, 12, 20)
    assert fixed.halo == (None,) * 3
    assert fixed.align == (1, 1, 1)
    assert traits_of(convolutions([3]), patch=(16,)).fixed_size is None
    assert traits_of(seeded(nn.Conv3d(1, 2, 16, 16), nn.Upsample(scale_factor=16)), patch=(16,)).fixed_size is None


class Resizes(nn.Module):
    """Brings whatever it gets to 16 voxels an axis, so what it returns does not grow."""

    def __init__(self) -> None:
        """A convolution with a stride."""
        super().__init__()
        self.inner = seeded(nn.Conv3d(1, 3, 2, stride=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features at half of the size, and at all of it."""
        resized = nn.functional.interpolate(x, size=(16, 16, 16), mode="trilinear")
        return [self.inner(resized), resized]


@pytest.mark.parametrize("field", ["patch", "size"])
def test_a_network_that_resizes_takes_one_size(field):
    """What a network makes of its own size is a map; that it makes the same of any other size is no growth."""
    traits = traits_of(Resizes(), **{field: (16,)})
    assert traits.fixed_size == (16, 16, 16)
    assert [(output.stride[0], output.offset[0]) for output in traits.outputs] == [(2, 0.5), (1, 0.0)]
    with pytest.raises(ModelContractError, match="set size to what the network resizes its input to"):
        _ = traits_of(Resizes()).outputs


def test_a_size_that_is_taken_by_chance():
    """A network whose sizes meet at the smallest by rounding alone, and not beyond, is tried with the next multiple."""

    class Net(nn.Module):
        def forward(self, x):
            short = nn.functional.avg_pool3d(x, 2)
            if x.shape[2] != 9 and x.shape[2] % 8:
                raise RuntimeError("the size must match")
            return short

    assert traits_of(Net()).filled((17, 30, 33))[0] == 24


def test_axes_alike_have_one_place_where_it_is_not_sharp():
    """Of three axes of one stride the middle offset holds where everything is seen; a measured reach is believed."""
    output = probe.OutputTraits(3, (8,) * 3, (3.5,) * 3, (0,) * 3)
    vague = [reach.Reach(None, 32, (place,)) for place in (0.0, 3.5, -4.0)]
    assert reach.with_offsets([output], vague)[0].offset == (0.0,) * 3
    sharp = [reach.Reach(40, 32, (place,)) for place in (0.0, 3.5, -4.0)]
    assert reach.with_offsets([output], sharp)[0].offset == (0.0, 3.5, -4.0)


def test_one_size_along_one_axis_only():
    """A size that is fixed along one axis is a size that is fixed."""
    assert traits_of(FixedSize(12, 1, 1), patch=(12,)).fixed_size == (12, 12, 12)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.AdaptiveAvgPool3d(4), "output 0 of the model to grow with its input, got 4 samples for 9 voxels"),
        (nn.AdaptiveAvgPool3d(1), "got 1 samples for 9 voxels and 1 for 73: it fits no grid; leave it out"),
        (nn.Flatten(), "of shape \\(1, C, 3 sizes\\)"),
        (nn.Conv3d(2, 2, 3), "set patch to the size it was made for"),
        (FixedSize(13, 13, 13), "set patch to the size it was made for"),
    ],
)
def test_what_fits_no_grid_is_refused(module, message):
    """Outputs that are no maps, and networks that take no input that was tried, are errors that say what to do."""
    with pytest.raises(ModelContractError, match=message):
        _ = traits_of(module).outputs


def test_a_cut_gradient_is_told():
    """Where no gradient comes back the receptive field must be stated, and then it works."""

    class Detached(nn.Module):
        def forward(self, x):
            return nn.functional.avg_pool3d(x.detach(), 2) + 0 * x.mean()

    with pytest.raises(ModelContractError, match="state receptive_field"):
        _ = traits_of(Detached()).halo
    traits = traits_of(Detached(), receptive_field=(2,))
    assert traits.halo == (2, 2, 2)
    assert traits.outputs[0].offset == (0.5,) * 3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_have_no_neighbours(axis):
    """Across the slices of a 2-D network there is no receptive field, no stride and no multiple."""
    network = as_network(seeded(nn.Conv2d(1, 2, 5, 2, 2)), ModelSpec(dimension=2))
    traits = Traits(SliceNetwork(network, axis), CPU)
    inside = [a for a in range(3) if a != axis]
    assert [(traits.halo[a], traits.align[a], traits.outputs[0].stride[a]) for a in inside] == [(2, 2, 2)] * 2
    assert (traits.halo[axis], traits.align[axis], traits.outputs[0].stride[axis]) == (0, 1, 1)
    assert traits.shapes((10, 11, 12)) == [(2, *[n if a == axis else -(-n // 2) for a, n in enumerate((10, 11, 12))])]


def test_memory_of_a_pass():
    """Bytes by voxel are at least those of the layers that are alive at once, and not many times as much."""
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[n]) for n in (0, 1)]!r}\n"
        "from test_probe import *\nfrom semreg.runtime.memory import return_freed_memory\nreturn_freed_memory()\n"
        "for _ in range(2):  # what is loaded at first use counts in the first one\n"
        "    memory = traits_of(seeded(nn.Conv3d(1, 32, 1), nn.Conv3d(32, 32, 1))).memory\n"
        "print(memory.per_voxel, memory.fixed)"
    )
    # in a process of its own: what the allocator keeps depends on what was done before
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    per_voxel, fixed = map(float, done.stdout.split())
    assert 2 * 32 * 4 * 0.95 < per_voxel < 6 * 32 * 4  # two layers; the rest are working copies
    assert fixed < 3 * 2**20


def test_tensors_are_counted_as_they_come_and_go():
    """The peak is that of the tensors alive at once, in plain modules and in TorchScript, whatever the system tells."""
    network = nn.Sequential(nn.Conv3d(1, 8, 1), nn.Conv3d(8, 16, 1), nn.Conv3d(16, 2, 1)).eval()
    x = torch.zeros(1, 1, 5, 6, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer torch; files of this kind stay in use
        scripted = torch.jit.script(network)
    for module in (network, scripted):
        with torch.inference_mode(), TensorTally() as tally:
            y = module(x)
        assert tally.peak == (8 + 16) * 4 * x.numel()
        assert y.numel() == 2 * x.numel()


@real
def test_receptive_field_of_meshnet():
    """The sum over its dilated layers is 46 voxels a side; measured on one axis."""
    network = load_network(MODELS / "brainchop_model30chan18cls.pt").keep((-1,))
    output = probe.OutputTraits(18, (1,) * 3, (0.0,) * 3, (0,) * 3)
    found = reach.measure_reach(network, [output], 1, (9, 9, 9), 2, CPU)
    assert (found.voxels, found.period, found.offsets) == (46, 1, (0.0,))


@real
def test_model_with_a_larger_output():
    """The 2-D model of IMPACT returns two pixels more than it is given, one on each side."""
    traits = Traits(load_network(MODELS / "R1D2_2D.pt", spec=ModelSpec(dimension=2)), CPU)
    (output,) = traits.outputs
    assert (output.stride, output.grown, output.channels) == ((1, 1), (2, 2), 4)
    assert output.offset == (-1.0, -1.0)
