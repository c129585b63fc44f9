"""Networks from files and from Python: what is read, what is refused, how a model is called, what is kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from semreg.errors import ConfigError, ModelContractError, ModelError, ModelNotFoundError
from semreg.features import torchscript
from semreg.features.contract import IntensityStats, ModelSpec, Network, Normalisation
from semreg.features.loaded import LoadedNetwork
from semreg.features.networks import as_network, load_network, read_spec

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
real = pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of real models, ../shared/data/models, is not here")

STATS = IntensityStats(minimum=-3.0, maximum=9.0, mean=1.5, std=2.5)
DIRECTION = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
FLAT = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)


ONE, EMPTY = torch.tensor([1]), torch.tensor([])


class Steps(nn.Module):
    """Three maps, the second at half the size, collected in a list; the activation works in place."""

    def __init__(self) -> None:
        """Weights that do not depend on other tests."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first = nn.Conv3d(1, 4, 3, padding=1)
            self.norm = nn.BatchNorm3d(4)
            self.second = nn.Conv3d(4, 5, 3, padding=1, stride=2)
            self.third = nn.Conv3d(5, 6, 1)
            self.norm.running_mean.uniform_(-1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps."""
        maps: list[Tensor] = []
        y = torch.relu(self.norm(self.first(x)))
        maps.append(y)
        z = self.second(y)
        maps.append(z.clone())
        z.relu_()
        maps.append(self.third(z))
        return maps


class Early(Steps):
    """As the models of IMPACT: normalised by the statistics, stops after ``nb_layers_tensor`` outputs."""

    def forward(
        self,
        x: Tensor,
        nb_layers_tensor: Tensor = ONE,
        stats: Tensor = EMPTY,
        direction: Tensor = EMPTY,
    ) -> list[Tensor]:
        """The first ``nb_layers_tensor`` maps."""
        nb_layers = int(nb_layers_tensor.item())
        if stats.shape[0] == 4:
            x = (x - stats[2]) / stats[3]
        if direction.dim() == 2 and bool((direction[0, 1] < 0).item()):
            x = -x
        y = self.first(x)
        if nb_layers == 1:
            return [y]
        z = self.second(y)
        if nb_layers == 2:
            return [y, z]
        return [y, z, self.third(z)]


class TwoDimensional(nn.Module):
    """One map of a picture of three channels, a tensor and no list."""

    def __init__(self) -> None:
        """A convolution with fixed weights."""
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The map."""
        return self.layer(x)


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module.eval())


def traced(module: nn.Module, *example: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module.eval(), example, strict=False)


def saved(module: torch.jit.ScriptModule, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module.save(str(path))
    return path


def exported(module: nn.Module, x: Tensor, shapes: object = None) -> torch.export.ExportedProgram:
    return torch.export.export(module.eval(), (x,), dynamic_shapes=shapes)


def tile(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)  # folded constants round


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(scripted(Steps()), tmp_path_factory.mktemp("models") / "steps.pt")


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return exported(Steps(), tile(1, 1, 8, 10, 12))


@pytest.mark.parametrize("suffix", [".pt", ".ts", ".jit"])
def test_torchscript_file(suffix: str, file: Path, tmp_path: Path) -> None:
    """A TorchScript file gives what the module gave, its checksum, its number of parameters and the file's name."""
    path = tmp_path / f"other{suffix}"
    path.write_bytes(file.read_bytes())
    network = load_network(path)
    assert isinstance(network, Network)
    assert network.spec == ModelSpec(name="other")
    assert network.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    module = Steps().eval()
    assert network.parameters == sum(p.numel() for p in module.parameters())
    x = tile(2, 1, 6, 8, 10)
    outputs = network(x, STATS, DIRECTION)
    assert [tuple(o.shape) for o in outputs] == [(2, 4, 6, 8, 10), (2, 5, 3, 4, 5), (2, 6, 3, 4, 5)]
    assert all(torch.equal(a, b) for a, b in zip(outputs, module(x), strict=True))


def test_traced_file(tmp_path: Path) -> None:
    """A traced module works as a scripted one does."""
    module = Early()
    example = (tile(1, 1, 8, 8, 8), torch.tensor([3]), torch.zeros(4), torch.eye(3))
    path = saved(traced(module, *example), tmp_path / "traced.pt")
    network = load_network(path)
    x = tile(1, 1, 6, 8, 10)
    outputs = network(x, STATS, DIRECTION)
    assert len(outputs) == 3
    assert close(outputs[2], module(x, torch.tensor([3]), torch.tensor(STATS), torch.eye(3))[2])
    assert torch.equal(network.keep((1,))(x, STATS, DIRECTION)[0], outputs[1])


def test_exported_file_of_one_size(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    """The only size that an exported program takes becomes the patch; a batch is seen image by image."""
    path = tmp_path / "fixed.pt2"
    torch.export.save(program, path)
    network = load_network(path)
    assert network.spec.patch == (8, 10, 12)
    assert load_network(path, spec=ModelSpec(patch=(16,))).spec.patch == (16,)
    x = tile(3, 1, 8, 10, 12)
    outputs = network(x, STATS, DIRECTION)
    assert all(close(a, b) for a, b in zip(outputs, Steps().eval()(x), strict=True))
    with pytest.raises(ModelContractError, match=r"tile of shape \(1, 1, 8, 8, 8\).*patch"):
        network(tile(1, 1, 8, 8, 8), STATS, DIRECTION)
    assert network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_exported_program_of_any_size() -> None:
    """A program with dynamic sizes takes them and fixes no patch."""
    module = nn.Conv2d(1, 3, 3, padding=1)
    auto = torch.export.Dim.AUTO
    program = exported(module, tile(2, 1, 9, 11), ({0: auto, 2: auto, 3: auto},))
    network = as_network(program, ModelSpec(dimension=2))
    assert network.spec.patch is None
    x = tile(3, 1, 7, 13)
    assert close(network(x, STATS, FLAT)[0], module(x))


def test_exported_program_and_description_disagree(program: torch.export.ExportedProgram) -> None:
    """A program for other dimensions or channels than described is refused when it is loaded."""
    with pytest.raises(ModelContractError, match=r"got one for \(1, 1, 8, 10, 12\): set dimension and channels"):
        as_network(program, ModelSpec(dimension=2))
    with pytest.raises(ModelContractError, match="3 channels"):
        as_network(program, ModelSpec(channels=3))


def test_description_beside_the_file(file: Path, tmp_path: Path) -> None:
    """``model.toml`` describes ``model.pt``; without it the defaults count; a given description wins."""
    path = tmp_path / "model.pt"
    path.write_bytes(file.read_bytes())
    assert read_spec(path) == ModelSpec()
    beside = tmp_path / "model.toml"
    beside.write_text("name = 'A'\nspacing_mm = [1.0]\n[normalisation]\nkind = 'min-max'\n", encoding="utf-8")
    expected = ModelSpec(name="A", spacing_mm=(1.0,), normalisation=Normalisation(kind="min-max"))
    assert read_spec(path) == expected
    assert load_network(path).spec == expected
    assert load_network(path, spec=ModelSpec()).spec == ModelSpec(name="model")


@pytest.mark.parametrize("text", ["chanels = 3", "channels = 0", "channels = ", "\x00"])
def test_a_wrong_description_is_named(text: str, file: Path, tmp_path: Path) -> None:
    """An error in a description says in which file."""
    path = tmp_path / "model.pt"
    path.write_bytes(file.read_bytes())
    path.with_suffix(".toml").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=re.escape(str(path.with_suffix(".toml")))) as caught:
        load_network(path)
    assert isinstance(caught.value.__cause__, ConfigError)


def test_checksum(file: Path) -> None:
    """The right checksum passes in any case; another one is refused with both, before the file is even looked into."""
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load_network(file, spec=ModelSpec(sha256=right.upper())).sha256 == right
    with pytest.raises(ModelError, match=f"expected the checksum {'0' * 64} for .*, got {right}"):
        load_network(file, spec=ModelSpec(sha256="0" * 64))


def test_checksum_comes_first(tmp_path: Path) -> None:
    """A file with another checksum is refused for that, whatever it is."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"anything")
    with pytest.raises(ModelError, match="checksum"):
        load_network(path, spec=ModelSpec(sha256="0" * 64))


class Touch:
    """A pickle of it makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        """The file it makes."""
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def pickles(touch: Touch) -> dict[str, bytes]:
    """Files that open ``touch`` when they are unpickled, as people make them."""
    found = {"protocol 2": pickle.dumps(touch, 2), "protocol 4": pickle.dumps(touch, 4)}
    buffers = {"torch.save": io.BytesIO(), "old torch.save": io.BytesIO()}
    torch.save({"weights": torch.zeros(2), "touch": touch}, buffers["torch.save"])
    torch.save([touch], buffers["old torch.save"], _use_new_zipfile_serialization=False)
    return found | {name: buffer.getvalue() for name, buffer in buffers.items()}


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".pth"])
@pytest.mark.parametrize("kind", ["protocol 2", "protocol 4", "torch.save", "old torch.save"])
def test_pickles_are_not_opened(kind: str, suffix: str, tmp_path: Path) -> None:
    """A pickle is recognised and refused with what to do instead; what it would do does not happen."""
    path, touched = tmp_path / f"model{suffix}", tmp_path / "touched"
    path.write_bytes(pickles(Touch(touched))[kind])
    with pytest.raises(ModelError, match=r"which is a pickle.*torch\.jit\.trace.*torch\.export"):
        load_network(path)
    assert not touched.exists()


def test_the_pickles_of_the_test_would_run(tmp_path: Path) -> None:
    """The pickles above do something when they are opened, so that the test above can fail."""
    touched = tmp_path / "touched"
    data = pickles(Touch(touched))
    for kind in ("protocol 2", "protocol 4"):
        pickle.loads(data[kind])  # noqa: S301 - that it runs is the point
        touched.rmdir()
    for kind in ("torch.save", "old torch.save"):
        torch.load(io.BytesIO(data[kind]), weights_only=False)
        touched.rmdir()


def test_state_dict_and_module_are_refused(tmp_path: Path) -> None:
    """What training code saves is refused with a way out: parameters alone and a whole module."""
    for name, value in (("state.pt", Steps().state_dict()), ("whole.pt", nn.Conv3d(1, 2, 3))):
        torch.save(value, tmp_path / name)
        with pytest.raises(ModelError, match=r"a pickle of torch\.save.*pass the module in Python"):
            load_network(tmp_path / name)


def replaced(path: Path, target: Path, part: str | tuple[str, ...], change) -> Path:
    """A copy of an archive in which each file whose name ends with ``part`` (or one of these) is changed."""
    with zipfile.ZipFile(path) as source:
        assert any(name.endswith(part) for name in source.namelist())
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        for name in source.namelist():
            data = source.read(name)
            copy.writestr(name, change(data) if name.endswith(part) else data)
    return target


def test_pickles_in_an_exported_program_are_not_opened(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    """Parts of an exported program are unpickled by torch: one with other things than tensors is refused unopened."""
    path, touched = tmp_path / "fine.pt2", tmp_path / "touched"
    torch.export.save(program, path)
    hostile = pickles(Touch(touched))["torch.save"]
    part = ("sample_inputs/model.pt", "serialized_example_inputs.pt")  # the latter in older versions of torch
    changed = replaced(path, tmp_path / "hostile.pt2", part, lambda _: hostile)
    with pytest.raises(ModelError, match=r"tensors only.*(sample|example)_inputs"):
        load_network(changed)
    assert not touched.exists()


def test_pickled_weights_in_an_exported_program_are_not_opened(
    program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    """The same for weights that the archive declares as pickles, as all of them are in older versions of torch."""
    path, touched = tmp_path / "fine.pt2", tmp_path / "touched"
    torch.export.save(program, path)
    older = not any(name.endswith("weights_config.json") for name in zipfile.ZipFile(path).namelist())

    def declare(data: bytes) -> bytes:
        config = json.loads(data)
        next(entry for entry in config["config"].values() if entry["path_name"] == "weight_0")["use_pickle"] = True
        return json.dumps(config).encode()

    hostile = pickles(Touch(touched))["torch.save"]
    if not older:
        path = replaced(path, tmp_path / "declared.pt2", "weights_config.json", declare)
    part = "serialized_state_dict.pt" if older else "weights/weight_0"
    changed = replaced(path, tmp_path / "hostile.pt2", part, lambda _: hostile)
    with pytest.raises(ModelError, match=rf"tensors only.*{part}"):
        load_network(changed)
    assert not touched.exists()


def test_calls_in_the_sizes_of_an_exported_program_are_not_made(tmp_path: Path) -> None:
    """Sizes in an exported program are evaluated by torch as expressions: what is more than a size is refused."""
    auto = torch.export.Dim.AUTO
    path, touched = tmp_path / "fine.pt2", tmp_path / "touched"
    program = exported(nn.Conv2d(1, 3, 3), tile(1, 1, 9, 11), ({2: auto, 3: auto},))
    torch.export.save(program, path)
    load_network(path, spec=ModelSpec(dimension=2))
    call = f"__import__('os').mkdir('{touched}')"

    def inject(data: bytes) -> bytes:
        return re.sub(rb'"expr_str": ?"[^"]*"', f'"expr_str": "{call}"'.encode(), data)

    part = ("models/model.json", "serialized_exported_program.json")  # the latter in older versions of torch
    changed = replaced(path, tmp_path / "hostile.pt2", part, inject)
    with pytest.raises(ModelError, match="expected sizes"):
        load_network(changed, spec=ModelSpec(dimension=2))
    assert not touched.exists()


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is said to be so, as Python would."""
    with pytest.raises(ModelNotFoundError, match=r"nowhere\.pt"):
        load_network(tmp_path / "nowhere.pt")
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "nowhere.pt")


def test_folder(tmp_path: Path) -> None:
    """A folder is no model."""
    with pytest.raises(ModelError, match="it is a folder"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (lambda _: b"", "which is empty"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"GIF89a" + data, "something else"),
        (lambda _: b"P", "something else"),
    ],
)
def test_damaged_file(cut, words: str, file: Path, tmp_path: Path) -> None:
    """An empty, truncated, foreign or damaged file is refused in one sentence that names it."""
    path = tmp_path / "model.pt"
    path.write_bytes(cut(file.read_bytes()))
    with pytest.raises(ModelError, match=words) as caught:
        load_network(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_code(file: Path, tmp_path: Path) -> None:
    """A whole archive whose code torch does not understand is refused in one sentence."""
    path = replaced(file, tmp_path / "model.pt", ".py", lambda data: data.replace(b"def forward", b"def f(rward"))
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_network(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_archive(tmp_path: Path) -> None:
    """An archive that is no model is refused."""
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(ModelError, match="another archive"):
        load_network(tmp_path / "model.pt")


def test_half_precision_file_is_loaded_in_float32(tmp_path: Path) -> None:
    """Weights stored in half precision compute in float32."""
    path = saved(scripted(Steps().half()), tmp_path / "half.pt")
    assert load_network(path)(tile(1, 1, 6, 6, 6), STATS, DIRECTION)[0].dtype == torch.float32


def given(*wanted: str):
    """A function that records what it was called with."""
    calls: list[dict[str, object]] = []

    def four(x, nb_layers, stats, direction):
        calls.append({"nb_layers": nb_layers, "stats": stats, "direction": direction})
        return [x]

    def three(x, count, facts):
        calls.append({"nb_layers": count, "stats": facts})
        return [x]

    def two(image, layers):
        calls.append({"nb_layers": layers})
        return [image]

    def one(x):
        calls.append({})
        return [x]

    def mixed(x, mode="fast", *, direction, image_stats):
        calls.append({"mode": mode, "direction": direction, "stats": image_stats})
        return [x]

    def swapped(x, stats, nb_layers: int = 2):
        calls.append({"stats": stats, "nb_layers": nb_layers})
        return [x]

    functions = {"4": four, "3": three, "2": two, "1": one, "mixed": mixed, "swapped": swapped}
    return functions[wanted[0]], calls


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("1", set()),
        ("2", {"nb_layers"}),
        ("3", {"nb_layers", "stats"}),
        ("4", {"nb_layers", "stats", "direction"}),
        ("mixed", {"mode", "stats", "direction"}),
        ("swapped", {"nb_layers", "stats"}),
    ],
)
def test_how_a_model_is_called(kind: str, names: set[str]) -> None:
    """A model gets what its parameters ask for, by name or in IMPACT's order; its own defaults stay."""
    function, calls = given(kind)
    as_network(function)(tile(1, 1, 4, 5, 6), STATS, DIRECTION)
    (call,) = calls
    assert set(call) == names
    if "stats" in names:
        assert call["stats"].dtype == torch.float32
        assert call["stats"].tolist() == [-3.0, 9.0, 1.5, 2.5]
    if "direction" in names:
        assert torch.equal(call["direction"], DIRECTION.float())
    if "nb_layers" in names:
        assert int(call["nb_layers"]) > 100
        assert isinstance(call["nb_layers"], int if kind == "swapped" else Tensor)
    assert call.get("mode", "fast") == "fast"


class Plain(nn.Module):
    """TorchScript with plain numbers as parameters."""

    def forward(self, x: Tensor, nb_layers: int, stats: list[float]) -> list[Tensor]:
        """The first ``nb_layers`` maps."""
        y = (x - stats[2]) / stats[3]
        maps = [y, y + 1, y + 2]
        return maps[:nb_layers]


def test_torchscript_with_plain_numbers() -> None:
    """Numbers and lists are given where TorchScript declares them."""
    network = as_network(scripted(Plain()))
    x = tile(1, 1, 4, 5, 6)
    outputs = network(x, STATS, DIRECTION)
    assert torch.allclose(outputs[2], (x - 1.5) / 2.5 + 2)
    assert torch.equal(network.keep((1,))(x, STATS, DIRECTION)[0], outputs[1])


def test_impact_module_from_python_and_from_torchscript() -> None:
    """A module with IMPACT's four parameters gets them the same way in Python and in TorchScript, with all outputs."""
    module, x = Early(), tile(2, 1, 6, 8, 10)
    expected = module(x, torch.tensor([3]), torch.tensor(STATS), DIRECTION.float())
    assert not close(expected[0], module(x)[0])  # the statistics and the direction count
    for model in (module, scripted(module)):
        outputs = as_network(model)(x, STATS, DIRECTION)
        assert len(outputs) == 3
        assert all(close(a, b) for a, b in zip(outputs, expected, strict=True))


def test_too_many_parameters() -> None:
    """A model that needs something unknown is refused when it is taken, with the parameter's name."""

    def greedy(x, nb_layers, stats, direction, prompt):
        return [x]

    with pytest.raises(ModelContractError, match="needs 'prompt' too"):
        as_network(greedy)


@pytest.mark.parametrize(
    "returned",
    [
        lambda a, b: [a, b],
        lambda a, b: (a, b),
        lambda a, b: OrderedDict(early=a, late=b),
    ],
)
def test_what_a_model_may_return(returned) -> None:
    """A list, a tuple and a dict count in their order."""
    network = as_network(lambda x: returned(x, x[..., ::2]))
    x = tile(1, 1, 4, 6, 8)
    first, second = network(x, STATS, DIRECTION)
    assert torch.equal(first, x)
    assert torch.equal(second, x[..., ::2])
    assert torch.equal(network.keep((1,))(x, STATS, DIRECTION)[0], second)


def test_a_tensor_is_one_output() -> None:
    """A tensor is the only output; integers become float32."""
    network = as_network(lambda x: (x > 0.5).long())
    (output,) = network(tile(1, 1, 4, 6, 8), STATS, DIRECTION)
    assert output.dtype == torch.float32


def test_grey_images_are_repeated() -> None:
    """One channel becomes as many as the model has, without a copy; the model's own number passes as it is."""
    seen: list[Tensor] = []
    network = as_network(lambda x: seen.append(x) or x, ModelSpec(dimension=2, channels=3))
    grey, colour = tile(2, 1, 5, 7), tile(2, 3, 5, 7)
    network(grey, STATS, FLAT)
    network(colour, STATS, FLAT)
    assert torch.equal(seen[0], grey.repeat(1, 3, 1, 1))
    assert seen[0].data_ptr() == grey.data_ptr()
    assert torch.equal(seen[1], colour)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 2, 4, 5, 6), "1 or 3 channels .* got 2: set channels"),
        (torch.zeros(1, 3, 4, 5), r"\(B, C, z, y, x\) .* got \(1, 3, 4, 5\): set dimension"),
        (torch.zeros(1, 3, 4, 5, 6, dtype=torch.float64), "float32 .* got torch.float64"),
        (torch.zeros(1, 3, 4, 5, 6, device="meta"), "on cpu .* got one on meta"),
    ],
)
def test_wrong_tiles(x: Tensor, words: str) -> None:
    """A tile that does not fit the description is refused with what to set, before the model runs."""
    network = as_network(lambda x: x / 0, ModelSpec(name="N", channels=3))
    with pytest.raises(ModelContractError, match=words):
        network(x, STATS, DIRECTION)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda x: [x, x[0]], r"output 1 of the model N of shape \(2, C, 3 sizes\) .* got \(1, 4, 5, 6\)"),
        (lambda x: [x.flatten(2)], r"output 0 .* got \(2, 1, 120\)"),
        (lambda x: [x[:1]], r"output 0 .* got \(1, 1, 4, 5, 6\)"),
        (lambda x: [x[:, :0]], "output 0"),
        (lambda x: {"a": x, "b": 3}, r"got a int as output 1 \(b\)"),
        (lambda _: None, "got a NoneType as output 0"),
        (lambda x: [[x]], "got a list as output 0"),
        (lambda _: [], "got no output"),
        (lambda x: [x, x / 0 * 0], "finite values in output 1 .* set normalisation"),
        (lambda x: [x.index_fill(4, torch.tensor([2]), float("inf"))], "finite values in output 0"),
    ],
)
def test_wrong_outputs(returned, words: str) -> None:
    """What is no feature map is refused with the number of the output and what to set."""
    network = as_network(returned, ModelSpec(name="N"))
    with pytest.raises(ModelContractError, match=words):
        network(tile(2, 1, 4, 5, 6), STATS, DIRECTION)


def test_large_values_are_finite() -> None:
    """Finite values whose sum overflows are no error."""
    network = as_network(lambda x: [torch.full_like(x, 3e38)])
    assert network(tile(1, 1, 4, 5, 6), STATS, DIRECTION)[0].max() == 3e38


def test_errors_of_torch_say_what_to_set() -> None:
    """An error inside torch becomes one sentence with the tile's shape and the settings that matter."""
    for model in (Steps(), scripted(Steps())):
        network = as_network(model, ModelSpec(channels=2))
        with pytest.raises(
            ModelContractError, match=r"\(1, 2, 4, 5, 6\), got RuntimeError.*channels, dimension"
        ) as caught:
            network(tile(1, 2, 4, 5, 6), STATS, DIRECTION)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value.__cause__, RuntimeError)


class Greedy(nn.Module):
    """Asks for more memory than there is."""

    def forward(self, x: Tensor) -> Tensor:
        """Nothing: it fails."""
        return x + torch.empty([1 << 47]).sum()


def test_errors_of_memory_pass() -> None:
    """A model that runs out of memory says so itself, so that the caller can take smaller tiles."""

    def out_of_memory(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        as_network(out_of_memory)(tile(1, 1, 4, 5, 6), STATS, DIRECTION)
    for model in (Greedy(), scripted(Greedy())):
        with pytest.raises(RuntimeError, match="allocate memory") as caught:
            as_network(model)(tile(1, 1, 4, 5, 6), STATS, DIRECTION)
        assert not isinstance(caught.value, ModelError)


LAYERS = [(0,), (1,), (2,), (-1,), (2, 0), (-2, -3), (0, 1, 2)]


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", ["module", "scripted", "early", "early module", "exported"])
def test_kept_outputs(kind: str, layers: tuple[int, ...], program: torch.export.ExportedProgram) -> None:
    """The outputs that are kept are the model's, in the order asked for, for every kind of model."""
    models = {
        "module": Steps,
        "scripted": lambda: scripted(Steps()),
        "early": lambda: scripted(Early()),
        "early module": Early,
        "exported": lambda: program,
    }
    network = as_network(models[kind](), None)
    x = tile(1, 1, 8, 10, 12)
    every = network(x, STATS, DIRECTION)
    assert len(every) == 3
    kept = network.keep(layers)
    outputs = kept(x, STATS, DIRECTION)
    assert all(close(output, every[layer]) for output, layer in zip(outputs, layers, strict=True))
    assert (kept.short is not None) == (kind in ("scripted", "early", "exported"))
    again = kept.keep((-1,))(x, STATS, DIRECTION)
    assert torch.equal(again[0], outputs[-1]) or close(again[0], outputs[-1])


class Heads(Steps):
    """Two heads side by side; nothing works in place."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of the heads."""
        y = self.first(x)
        side = self.third(self.second(y))
        return [side, y * 2]


def test_what_is_not_kept_is_not_computed(program: torch.export.ExportedProgram) -> None:
    """What no kept layer needs costs nothing, be it later or beside: it is gone from the program."""
    assert str(as_network(scripted(Heads())).keep((1,)).short.graph).count("aten::conv3d") == 1
    for model in (Steps(), Early()):
        short = as_network(scripted(model)).keep((0,)).short
        assert str(short.graph).count("aten::conv3d") == 1
    short = as_network(program).keep((0,)).short
    # the second convolution stays: what follows changes a tensor in place, and fx does not know which ones share memory
    assert sum("conv3d" in str(node.target) for node in short.graph.nodes) == 2


def test_a_model_that_stops_early_is_told_how_far_to_go() -> None:
    """The number of layers is one more than the last one that is kept."""
    function, calls = given("4")
    network = as_network(lambda x, nb_layers: [x + i for i in range(min(int(nb_layers), 4))])
    assert len(network(tile(1, 1, 4, 4, 4), STATS, DIRECTION)) == 4
    as_network(function).keep((0,))(tile(1, 1, 4, 4, 4), STATS, DIRECTION)
    assert int(calls[-1]["nb_layers"]) == 1
    kept = network.keep((-1, 1))
    assert kept.number == 4


@pytest.mark.parametrize("layers", [(3,), (0, -4)])
def test_outputs_that_there_are_not(layers: tuple[int, ...]) -> None:
    """An output beyond the last one is refused with how many there are."""
    for model in (Steps(), scripted(Steps())):
        with pytest.raises(ModelContractError, match=f"from 0 to 2.* got {layers[-1]}: it has 3 outputs"):
            as_network(model).keep(layers)
    with pytest.raises(ModelContractError, match="at least one layer"):
        as_network(Steps()).keep(())


def test_outputs_of_a_model_that_takes_no_small_input() -> None:
    """Where a model cannot be tried, its outputs are picked and checked in the first call."""

    def picky(x):
        if x.shape[2:] != (70, 3, 3):
            raise ValueError("70, 3, 3")
        return [x, x + 1]

    x = tile(1, 1, 70, 3, 3)
    network = as_network(picky)
    assert torch.equal(network.keep((-1,))(x, STATS, DIRECTION)[0], x + 1)
    with pytest.raises(ModelContractError, match="it has 2 outputs"):
        network.keep((2,))(x, STATS, DIRECTION)


class Depends(nn.Module):
    """How many outputs there are depends on the values of the input."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps."""
        maps = [x + 1]
        for _ in range(int(x.sum().item() * 0) + 2):
            maps.append(maps[-1] * 2)
        return maps


class InPlace(nn.Module):
    """An output is changed in place after it was collected."""

    def __init__(self) -> None:
        """A convolution and an activation in place."""
        super().__init__()
        self.layer = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps."""
        y = self.layer(x)
        maps = [y]
        maps.append(torch.relu_(y) * 2)
        return maps


class RarelyInPlace(InPlace):
    """The change in place does nothing to small values, such as those that a shortened program is tried on."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps."""
        y = self.layer(x)
        half = y[:, :1].clamp_(-50.0, 50.0)
        return [y, half * 2]


@pytest.mark.parametrize("module", [Depends(), InPlace(), RarelyInPlace()])
def test_programs_that_are_not_understood_run_whole(module: nn.Module) -> None:
    """Where a program cannot be shortened safely the right outputs come nevertheless."""
    network, x = as_network(scripted(module)), 1e4 * (tile(1, 1, 6, 7, 8) - 0.5)
    every = network(x, STATS, DIRECTION)
    for layer in range(len(every)):
        assert torch.equal(network.keep((layer,))(x, STATS, DIRECTION)[0], every[layer])


def test_missing_private_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the functions that torch keeps private the model runs whole."""
    monkeypatch.setattr(torchscript, "PRIVATE", ("no_such_pass", *torchscript.PRIVATE[1:]))
    network = as_network(scripted(Steps()))
    kept = network.keep((1,))
    assert kept.short is None
    x = tile(1, 1, 6, 8, 10)
    assert torch.equal(kept(x, STATS, DIRECTION)[0], network(x, STATS, DIRECTION)[1])


def test_a_shortened_program_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortened program must give what the whole one gives, else the whole one runs."""
    shortened = torchscript._shortened
    monkeypatch.setattr(torchscript, "_shortened", lambda module, _, fixed: shortened(module, [0], fixed))
    network = as_network(scripted(Steps()))
    assert network.keep((0,)).short is not None
    assert network.keep((2,)).short is None


@pytest.mark.parametrize("kind", ["module", "scripted", "exported"])
def test_gradients_reach_the_input(kind: str, program: torch.export.ExportedProgram) -> None:
    """The input's gradient passes through whole and shortened models, also if they were kept in inference mode."""
    models = {"module": Steps, "scripted": lambda: scripted(Steps()), "exported": lambda: program}
    network = as_network(models[kind]())
    with torch.inference_mode():
        kept = network.keep((2,))
        assert kept(tile(1, 1, 8, 10, 12), STATS, DIRECTION)[0].is_inference()
    expected = tile(1, 1, 8, 10, 12).requires_grad_()
    Steps().eval()(expected)[2].square().sum().backward()
    for chosen in (network, kept):
        for _ in range(3):  # TorchScript optimises after its first calls
            x = tile(1, 1, 8, 10, 12).requires_grad_()
            chosen(x, STATS, DIRECTION)[-1].square().sum().backward()
            assert torch.allclose(x.grad, expected.grad, rtol=1e-3, atol=1e-4)
            assert x.grad.abs().max() > 0


def test_modules_are_evaluated_without_gradients_for_parameters() -> None:
    """A module in training mode is evaluated, and no gradients are kept for its parameters."""
    module = nn.Sequential(nn.Dropout(0.9), nn.Conv3d(1, 2, 3))
    network = as_network(module)
    x = tile(1, 1, 5, 5, 5)
    (output,) = network(x, STATS, DIRECTION)
    assert torch.equal(output, network(x, STATS, DIRECTION)[0])
    assert not output.requires_grad


def test_mixed_precision() -> None:
    """Half precision is used where it is wanted and only there, whatever the caller does; outputs are float32."""
    seen: list[torch.dtype] = []

    class Spy(Steps):
        def forward(self, x: Tensor) -> list[Tensor]:
            maps = super().forward(x)
            seen.extend(m.dtype for m in maps)
            return maps

    x = tile(1, 1, 6, 8, 10)
    exact = as_network(Spy())(x, STATS, DIRECTION)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(as_network(Spy())(x, STATS, DIRECTION)[2], exact[2])
    assert set(seen) == {torch.float32}
    half = as_network(Spy(), ModelSpec(mixed_precision=True))(x, STATS, DIRECTION)
    assert seen[-1] == torch.bfloat16
    assert {o.dtype for o in half} == {torch.float32}
    assert 0 < float((half[2] - exact[2]).abs().max()) < 0.05 * float(exact[2].abs().max())
    kept = as_network(scripted(Steps()), ModelSpec(mixed_precision=True)).keep((2,))
    assert kept.short is not None
    assert torch.allclose(kept(x, STATS, DIRECTION)[0], half[2], atol=0.02 * float(exact[2].abs().max()))


@pytest.mark.parametrize("kind", ["module", "scripted", "exported"])
def test_moving(kind: str, program: torch.export.ExportedProgram) -> None:
    """``to`` gives a network elsewhere and leaves this one; to where it is, itself."""
    models = {"module": Steps, "scripted": lambda: scripted(Steps()), "exported": lambda: program}
    network = as_network(models[kind]())
    assert network.to("cpu") is network
    moved = LoadedNetwork(network.spec, network.device, network.model.to(torch.device("cpu")))
    x = tile(1, 1, 8, 10, 12)
    assert torch.equal(moved(x, STATS, DIRECTION)[2], network(x, STATS, DIRECTION)[2])
    if kind == "module":
        assert network.to("meta").device.type == "meta"
        assert network(x, STATS, DIRECTION)[0].device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_moving_to_a_gpu(file: Path) -> None:
    """A kept network moves with its constants, in both precisions."""
    network = load_network(file).keep((2,))
    moved, x = network.to("cuda"), tile(1, 1, 8, 10, 12)
    expected = network(x, STATS, DIRECTION)[0]
    assert moved.short is not None
    assert torch.allclose(moved(x.cuda(), STATS, DIRECTION)[0].cpu(), expected, atol=1e-3)
    half = load_network(file, spec=ModelSpec(mixed_precision=True), device="cuda").keep((2,))
    assert torch.allclose(half(x.cuda(), STATS, DIRECTION)[0].cpu(), expected, atol=2e-2)


def test_networks_are_returned_as_they_are() -> None:
    """What is a network already stays itself; a description or device given with it counts."""
    network = as_network(Steps())
    assert as_network(network) is network
    assert as_network(network, ModelSpec(name="other"), device="cpu").spec.name == "other"

    class Own:
        spec = ModelSpec(name="own")

        def __call__(self, x, *_):
            return [x]

    own = Own()
    assert as_network(own) is own


def test_what_is_no_model() -> None:
    """Something that cannot be called is refused."""
    with pytest.raises(ModelError, match="got a dict"):
        as_network({"weight": torch.zeros(3)})


@real
@pytest.mark.parametrize(
    ("name", "dimension", "channels", "growth"), [("M730_1_Layers.pt", 3, 32, 0), ("R1D2_2D.pt", 2, 4, 2)]
)
def test_original_models(name: str, dimension: int, channels: int, growth: int) -> None:
    """Two files of IMPACT: their channels and sizes; kept, the same values."""
    network = load_network(MODELS / name, spec=ModelSpec(dimension=dimension))
    sizes = (16, 18, 20)[:dimension]
    x = tile(2, 1, *sizes)
    (output,) = network(x, STATS, DIRECTION)
    assert tuple(output.shape) == (2, channels, *(size + growth for size in sizes))
    assert close(network.keep((-1,))(x, STATS, DIRECTION)[0], output)


def peak(network: Network, x: Tensor) -> int:
    """The most memory that torch held at once during a call, bytes."""
    held = highest = 0
    with (
        torch.inference_mode(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        network(x, STATS, DIRECTION)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


@real
def test_kept_outputs_free_the_others() -> None:
    """MeshNet returns ten maps, 1152 bytes a voxel; with the last one kept, a third of the memory is enough."""
    network = load_network(MODELS / "brainchop_model30chan18cls.pt")
    kept, x = network.keep((9,)), tile(1, 1, 32, 32, 32)
    assert close(kept(x, STATS, DIRECTION)[0], network(x, STATS, DIRECTION)[9])
    assert peak(network, x) > 1152 * x.numel()
    assert peak(kept, x) < 400 * x.numel()
