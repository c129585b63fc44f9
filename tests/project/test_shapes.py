"""Promises of the shapes in signatures: what is handed over while a registration runs has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LIE = """
from jaxtyping import Float
from torch import Tensor

def turned(x: Float[Tensor, "a b"]) -> Float[Tensor, "a b"]:
    return x.T
"""


@pytest.mark.parametrize("dimension", [2, 3])
def test_shapes_hold_while_a_registration_runs(dimension):
    """Alignment, search, refinement, inverse, all distances and the loss are handed what their signatures say."""
    command = [sys.executable, "-W", "ignore", str(TESTS / "shape_checker.py"), str(dimension)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 1000


def test_a_shape_that_lies_is_noticed(tmp_path, monkeypatch):
    """A result of another shape than its signature says is an error while shapes are checked, and only then."""
    (tmp_path / "lying.py").write_text(LIE, encoding="utf-8")
    code = "import lying, torch; lying.turned(torch.zeros(2, 3))"
    hook = "from jaxtyping import install_import_hook; install_import_hook('lying', 'shape_checker.check'); "
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{TESTS}")
    plain, checked = [
        subprocess.run([sys.executable, "-c", each], capture_output=True, text=True, check=False)
        for each in (code, hook + code)
    ]
    assert plain.returncode == 0, plain.stderr
    assert checked.returncode == 1
    assert "lying.turned" in checked.stderr
