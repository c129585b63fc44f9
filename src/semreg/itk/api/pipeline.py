"""Outputs that belong to ITK's pipeline: whoever updates one, in C++ too, runs the filter in Python that it comes from.

ITK lets Python fill images of scalars alone (``itk.PyImageFilter``). So an output is made by two filters of ITK. The
*trigger* is a PyImageFilter without voxels: ITK asks it for the grid of the output and for its data, and it asks
Python. The *head*, a resampler onto the trigger's grid, has one voxel to read; when it has ended it is given the image
that Python made, without a copy. Inputs of all types are followed through filters that ITK has for them.

What refers to Python from within ITK does so weakly: ITK's reference counts are no part of Python's search for cycles.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Protocol
from weakref import ref

from semreg.core.geometry import Grid
from semreg.io.bridge import import_itk, with_itk_header

ANY_PLACE = 1e30
"""Tolerance with which inputs may lie apart: they are registered, not compared voxel by voxel."""


class Source(Protocol):
    """What an output asks of the filter that it comes from."""

    def layout(self, index: int) -> tuple[Grid, int]:
        """The grid of an output and the components of its samples."""
        ...

    def compute(self) -> None:
        """Bring the data up to date; nothing where nothing changed."""
        ...

    def made(self, index: int) -> Any:
        """The ITK image, which owns its memory, that the output is to show."""
        ...


class PipelineOutput:
    """One output of a filter in Python: an image of ITK whose source is a filter of ITK."""

    def __init__(self, source: Source, index: int, image_type: Any, dimension: int) -> None:
        """The ``index``-th output of ``source``, an ``image_type`` of ``dimension`` axes."""
        itk = import_itk()
        self._source, self._index = ref(source), index
        self._scalar = itk.Image[itk.F, dimension]
        self._probes: list[tuple[Any, Any]] = []
        self._anchor, self._voxel = _one_voxel(self._scalar, dimension), _one_voxel(image_type, dimension)
        self._trigger = _trigger(self, self._scalar)
        self._trigger.SetInput(self._anchor)
        self.head = itk.ResampleImageFilter[image_type, image_type].New()
        """The filter of ITK that the image comes from."""
        self.head.SetInput(self._voxel)
        self.head.SetReferenceImage(self._trigger.GetOutput())
        self.head.SetUseReferenceImage(True)
        self.head.SetReleaseDataBeforeUpdateFlag(True)  # else it resamples into the memory of what it was handed before
        self.head.AddObserver(itk.EndEvent(), _weakly(self, PipelineOutput.fill))

    @property
    def image(self) -> Any:
        """The output as it is in the pipeline now."""
        return self.head.GetOutput()

    def connect(self, inputs: Iterable[Any]) -> None:
        """Depend on these ITK objects; those of types that ITK has no filter for are noticed by ``Update`` alone."""
        known = {id(image): probe for image, probe in self._probes}
        self._probes = [(image, known.get(id(image)) or _probe(image, self._scalar)) for image in inputs]
        followed = [probe.GetOutput() for _, probe in self._probes if probe is not None]
        while self._trigger.GetNumberOfIndexedInputs() > 1 + len(followed):
            self._trigger.PopBackInput()
        for number, image in enumerate(followed, start=1):
            self._trigger.SetInput(number, image)

    def modified(self) -> None:
        """Say that the filter in Python was changed."""
        self._trigger.Modified()

    def release(self) -> None:
        """Drop the data: it is no longer what the filter would give."""
        self.image.ReleaseData()

    def inform(self) -> None:
        """Tell ITK the grid, and the number of components, which the resampler takes over from its voxel."""
        grid, components = self._alive().layout(self._index)
        output = self._trigger.GetOutput()
        output.SetRegions(grid.size_xyz)
        with_itk_header(output, grid)
        if self._voxel.GetNumberOfComponentsPerPixel() != components:
            self._voxel.SetNumberOfComponentsPerPixel(components)
            self._voxel.Allocate(True)

    def generate(self) -> None:
        """Run the filter in Python."""
        self._alive().compute()
        output = self._trigger.GetOutput()
        output.SetBufferedRegion(output.GetLargestPossibleRegion())

    def fill(self) -> None:
        """Show what it made."""
        self.head.GraftOutput(self._alive().made(self._index))

    def _alive(self) -> Source:
        source = self._source()
        if source is None:
            raise RuntimeError("expected the filter of this image to be kept as long as it is updated, it is gone")
        return source


def _weakly(output: PipelineOutput, method: Any) -> Any:
    """A method for ITK to call, which keeps the output no longer alive."""
    weak = ref(output)

    def call(*_: Any) -> None:
        found = weak()
        if found is None:
            return
        with ExitStack() as failed:
            # else ITK takes it for one that is still being updated, and skips it ever after
            failed.callback(found.head.ResetPipeline)
            method(found)
            failed.pop_all()

    return call


def _trigger(output: PipelineOutput, scalar: Any) -> Any:
    """The filter through which ITK calls Python."""
    trigger = import_itk().PyImageFilter[scalar, scalar].New()
    _let_itk_call(trigger)
    trigger.SetCoordinateTolerance(ANY_PLACE)
    trigger.SetDirectionTolerance(ANY_PLACE)
    trigger.SetPyGenerateOutputInformation(_weakly(output, PipelineOutput.inform))
    trigger.SetPyEnlargeOutputRequestedRegion(_all_of_it)
    trigger.SetPyGenerateInputRequestedRegion(_all_of_its_inputs)
    trigger.SetPyGenerateData(_weakly(output, PipelineOutput.generate))
    return trigger


def _probe(image: Any, scalar: Any) -> Any:
    """A filter behind ``image`` whose output an image of scalars depends on; None if ITK has none for its type."""
    itk = import_itk()
    kinds = (("PyImageFilter", (type(image), scalar)), ("CastImageFilter", (type(image), scalar)),
             ("VectorIndexSelectionCastImageFilter", (type(image), scalar)))  # fmt: skip
    for name, types in kinds:
        try:
            probe = getattr(itk, name)[types].New()
        except (KeyError, TypeError):
            continue
        if name == "PyImageFilter":
            _let_itk_call(probe)
            probe.SetPyGenerateData(_nothing)
        probe.SetInput(image)
        return probe
    return None


def _let_itk_call(python_filter: Any) -> None:
    """Tell a PyImageFilter its object in Python: its own ``Update`` does, but not that of a filter behind it."""
    python_filter._SetSelf(python_filter)  # noqa: SLF001 (there is no other way)


def _nothing(_: Any) -> None:
    """No voxels are needed of a probe."""


def _all_of_it(_: Any, output: Any) -> None:
    output.SetRequestedRegionToLargestPossibleRegion()


def _all_of_its_inputs(trigger: Any) -> None:
    for number in range(trigger.GetNumberOfIndexedInputs()):
        trigger.GetInput(number).SetRequestedRegionToLargestPossibleRegion()


def _one_voxel(image_type: Any, dimension: int) -> Any:
    image = image_type.New()
    image.SetRegions([1] * dimension)
    image.SetNumberOfComponentsPerPixel(dimension)
    image.Allocate(True)
    return image
