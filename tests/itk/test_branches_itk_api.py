"""What scripts for ITK are told when they ask for what there is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semreg.errors import ConfigError
from semreg.itk.api.metricv4 import PythonMetricv4

pytest.importorskip("itk")


@pytest.fixture(scope="module")
def itk() -> Any:
    """The package itk with the names that the import puts there."""
    import itk
    import semreg.itk.api  # noqa: F401

    return itk


def picture(itk: Any, value: float) -> Any:
    """A small image of one value."""
    return itk.image_from_array(np.full((4, 5), value, np.float32))


def test_a_class_with_types_takes_no_more(itk: Any) -> None:
    """Types in brackets are given once."""
    kind = itk.Image[itk.F, 2]
    with pytest.raises(TypeError, match="expected no further types for"):
        itk.ImpactFineRegistration[kind, kind][kind, kind]


def test_more_inputs_than_there_are(itk: Any) -> None:
    """A third image without a name is refused with the number that there may be."""
    kind = itk.Image[itk.F, 2]
    images = [picture(itk, value) for value in (0, 1, 2)]
    with pytest.raises(TypeError, match=r"expected at most 2 inputs for .*, got 3: name the others"):
        itk.ImpactFineRegistration[kind, kind].New(*images)


def test_observers_are_functions(itk: Any) -> None:
    """A number is no observer; an ITK command, which has Execute, is one."""
    made = itk.ImpactFineRegistration.New()
    with pytest.raises(TypeError, match="expected a function without parameters, got 3"):
        made.AddObserver(itk.ModifiedEvent(), 3)
    heard: list[str] = []

    class Command:
        def Execute(self) -> None:  # noqa: N802 (ITK's name)
            heard.append("modified")

    made.AddObserver(itk.ModifiedEvent(), Command())
    made.Modified()
    assert heard == ["modified"]


def test_abort_can_be_taken_back(itk: Any) -> None:
    """On, off, and asked for."""
    made = itk.ImpactFineRegistration.New()
    assert not made.GetAbortGenerateData()
    made.AbortGenerateDataOn()
    assert made.GetAbortGenerateData()
    made.AbortGenerateDataOff()
    assert not made.GetAbortGenerateData()


def test_inputs_are_replaced_by_their_index(itk: Any) -> None:
    """``SetInput(i, image)`` replaces the i-th image or adds the next one, and refuses a gap."""
    made = itk.ImageToFeaturesMap.New()
    first, second, third = (picture(itk, value) for value in (0, 1, 2))
    made.SetInput(first)
    made.SetInput(1, second)
    made.SetInput(0, third)
    assert [itk.array_from_image(made.GetInput(i))[0, 0] for i in range(2)] == [2, 1]
    with pytest.raises(ConfigError, match="expected an index up to 2 for SetInput, got 4: add one by one"):
        made.SetInput(4, first)


def test_a_configuration_shows_what_was_set(itk: Any) -> None:
    """The text of a configuration names what differs from the defaults."""
    made = itk.ImpactModelConfiguration()
    assert repr(made) == "ImpactModelConfiguration()"
    made.SetDimension(2)
    assert repr(made) == "ImpactModelConfiguration(Dimension=2)"


def test_one_output_is_all_there_is(itk: Any) -> None:
    """A second output is refused."""
    with pytest.raises(ConfigError, match=r"expected output 0 of .*, got 1: it has one"):
        itk.ImpactFineRegistration.New().GetOutput(1)


def test_metrics_need_image_types_and_evaluate() -> None:
    """A metric of one's own is made with image types in brackets, and has to say how it is evaluated."""

    class Mine(PythonMetricv4):
        """Forgets evaluate."""

    with pytest.raises(TypeError, match=r"expected image types, as in Mine\[ImageType, ImageType\]"):
        Mine.New()
    with pytest.raises(NotImplementedError, match="expected Mine to override evaluate"):
        Mine().evaluate(np.zeros((3, 2)), np.zeros((3, 2)))
