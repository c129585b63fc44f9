"""Files of networks, nearly right: archives of TorchScript and torch.export, and code that takes what it can get.

The mutations are loaded and run in the process of the harness, by a command of its own, because the trial in a second
process takes seconds; the commands of users run some of the cases made by hand.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fuzz_harness import Case
from fuzz_images import VOXELS, nifti
from fuzz_kinds import Kind, Seed
from semreg.cli import app
from semreg.cli.common import sentences


@app.command("try-model", hidden=True)  # unseen by tests of what users see
def load_and_run(path: Path) -> None:
    """Load a network and show it a small image."""
    from semreg.errors import ModelError
    from semreg.features.agreement import attempt
    from semreg.features.networks import load_network
    from semreg.runtime.memory import is_out_of_memory

    with sentences(debug=False):
        try:
            network = load_network(path)
            attempt(network.values, network.spec, network.device)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):  # what the trial says
                raise ModelError("expected a model that takes less memory") from error
            raise


class Plain(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        """The same weights always."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(2, 3, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Both outputs."""
        y = torch.relu(self.first(x))
        return [y, self.second(y)]


class Large(nn.Module):
    """Asks for all memory."""

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the input is."""
        return x + torch.zeros(200_000_000_000).sum()


@cache
def scripted(module: type[nn.Module]) -> bytes:
    """The module as a file of TorchScript."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module().eval()), buffer)
    return buffer.getvalue()


@cache
def exported() -> bytes:
    """The module as a program of torch.export."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Plain().eval(), (torch.rand(1, 1, 8, 8, 8),)), buffer)
    return buffer.getvalue()


def unpacked(data: bytes, change: dict[str, bytes] | None = None) -> bytes:
    """The same archive, not compressed, so that mutations reach what is in it, with other parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        parts = {entry.filename: old.read(entry) for entry in old.infolist()}
        for name, part in (
            parts | {next(n for n in parts if n.endswith(e)): v for e, v in (change or {}).items()}
        ).items():
            new.writestr(name, part)
    return buffer.getvalue()


def pickled() -> bytes:
    """A file of torch.save."""
    buffer = io.BytesIO()
    torch.save(Plain().state_dict(), buffer)
    return buffer.getvalue()


def shared() -> dict[str, bytes]:
    """An image."""
    return {"image.nii": nifti() + VOXELS}


def seeds() -> list[Seed]:
    """One of each kind of file."""
    commands = (("try-model", "a.pt"),)
    files = (scripted(Plain), unpacked(scripted(Plain)), exported(), unpacked(exported()))
    return [Seed(name="a.pt", data=data, arguments=commands, text=False) for data in files]


def known() -> list[Case]:
    """Code that takes what it can get, and files that hold no model."""
    script, cases = scripted(Plain), []
    users = ("infer", "../shared/image.nii", "-m", "a.pt", "-o", "out.nii", "--memory", "3GB")
    for what, data in {
        "large": scripted(Large), "words": b"hello world" * 99,
        "bomb of code": unpacked(script, {".py": b"#" * (1 << 27)}),
    }.items():  # fmt: skip
        cases.append(Case(name=f"models/known/{what}", arguments=users, files={"a.pt": data}, refused=True))
    files = {
        "empty": b"", "pickle": pickled(), "half": script[: len(script) // 2],
        "archive": unpacked(script, {"version": b"x"}),
        "no code": unpacked(script, {".py": b""}), "other code": unpacked(script, {".py": b"def f(:\n" * 99}),
        "deep code": unpacked(script, {".py": b"(" * 100_000}),
        "constants": unpacked(script, {"constants.pkl": b"\x80\x02"}),
        "data": unpacked(script, {"data.pkl": b"\x80\x02N."}), "program": unpacked(exported(), {"model.json": b"{}"}),
        "no program": unpacked(exported(), {"model.json": b"[" * 100_000}),
        "weights": unpacked(exported(), {"weights_config.json": b"null"}), "end": script + b"x" * 99,
    }  # fmt: skip
    for what, data in files.items():
        case = Case(
            name=f"models/known/{what}", arguments=("try-model", "a.pt"), files={"a.pt": data}, refused=what != "end"
        )
        cases.append(case)
    return cases


KIND = Kind(
    name="models", shared=shared, seeds=seeds, known=known,
    modules=("fuzz_models", "semreg.features.networks", "semreg.features.inference", "torch.export"),
)  # fmt: skip
