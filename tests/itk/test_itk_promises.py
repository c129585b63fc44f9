"""The promises of itk-impact's tests, on textures of our own; ``benchmarks/itk_promises.py`` measures them on both."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("itk", reason="needs the package itk")

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import run_promises
from run_promises import PROMISES, networks


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of the two networks."""
    folder = tmp_path_factory.mktemp("networks")
    networks(folder)
    return folder


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.name)
def test_promise(models, promise, monkeypatch):
    """The figure is below its bar, with fewer iterations than the benchmark takes."""
    monkeypatch.setattr(run_promises, "MOST_ITERATIONS", 140)
    figure = promise.measure(models)
    assert figure < promise.bar, f"{promise.name}: {figure} {promise.unit}"
