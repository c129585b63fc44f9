"""Filters in Python that are ITK process objects: ``Update``, outputs in ITK's pipeline, progress, and a way to stop.

Knows nothing of images and registration.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, SemregError
from semreg.io.bridge import import_itk
from semreg.itk.api import checks
from semreg.itk.api.objects import ITKObject
from semreg.itk.api.pipeline import PipelineOutput


class ProcessAborted(SemregError, RuntimeError):  # noqa: N818 (ITK's name)
    """A filter was told to stop (``AbortGenerateDataOn``) and stopped between two steps; it has no new output."""


class Process(ITKObject):
    """A filter: its outputs are images of ITK's pipeline, and whoever updates one of them runs it if it is out of date.

    ``Update`` raises what went wrong. Where ITK runs it, for a filter or a writer behind it, ITK prints that and raises
    a RuntimeError. As with all filters of ITK in Python, keep it as long as its outputs are to be updated.
    """

    def __init__(self) -> None:
        """Nothing computed yet."""
        self._pipeline: dict[int, PipelineOutput] = {}
        self._progress, self._abort, self._running = 0.0, False, False
        self._work_units = int(import_itk().MultiThreaderBase.GetGlobalDefaultNumberOfThreads())
        self._done: tuple[int, ...] | None = None
        super().__init__()

    def inputs(self) -> Iterator[Any]:
        """The ITK objects that were set and that the output depends on."""
        raise NotImplementedError

    def check_inputs(self) -> None:
        """Refuse to run where one is missing (ConfigError)."""
        raise NotImplementedError

    def generate(self) -> None:
        """Compute the output."""
        raise NotImplementedError

    def clear(self) -> None:
        """Drop what was computed."""
        raise NotImplementedError

    def image_type(self, index: int, dimension: int) -> Any:
        """The type of ITK image that an output is (ConfigError where there is no such output)."""
        raise NotImplementedError

    def layout(self, index: int) -> tuple[Grid, int]:
        """The grid of an output and the components of its samples; what they follow from is up to date."""
        raise NotImplementedError

    def made(self, index: int) -> Any:
        """An output as it was computed, an ITK image that owns its memory."""
        raise NotImplementedError

    def Modified(self) -> None:  # noqa: N802
        """Say that it was changed: its outputs are out of date."""
        super().Modified()
        for output in self._pipeline.values():
            output.connect(self.inputs())
            output.modified()

    def Update(self) -> None:  # noqa: N802
        """Bring the outputs up to date; nothing is computed where nothing changed since.

        Where it fails there is no output: an earlier one would be of other inputs.
        """
        self.compute()
        self.GetOutput()
        for index, output in self._pipeline.items():
            self.layout(index)
            output.head.ResetPipeline()  # from an error of what it depends on
            output.head.UpdateLargestPossibleRegion()

    def UpdateLargestPossibleRegion(self) -> None:  # noqa: N802
        """The same as ``Update``: there is no smaller region."""
        self.Update()

    def UpdateOutputData(self, _output: Any = None) -> None:  # noqa: N802
        """The same as ``Update``: all outputs are made at once."""
        self.Update()

    def UpdateOutputInformation(self) -> None:  # noqa: N802
        """Bring the grid of the first output up to date, and only what that follows from."""
        self.check_inputs()
        self.GetOutput()
        for each in self.inputs():
            if hasattr(each, "UpdateOutputInformation"):
                each.UpdateOutputInformation()
        self.layout(0)
        self._pipeline[0].head.UpdateOutputInformation()

    def compute(self) -> None:
        """Run if something changed since the last run; this is what ITK's pipeline calls."""
        if self._running:
            return
        done, self._done, self._running = self._done, None, True
        try:
            self.check_inputs()
            given = list(self.inputs())
            for each in given:
                _update(each)
            state = (self.GetMTime(), *(int(each.GetMTime()) for each in given))
            if state != done:
                self.clear()
                self._run()
            # what observers changed while it ran counts as a change after it
            self._done = state
        finally:
            self._running = False
            if self._done is None:
                self.clear()
                for output in self._pipeline.values():
                    output.release()

    def _run(self) -> None:
        """Compute the output, and tell observers."""
        self._abort, self._progress = False, 0.0
        self._invoke("StartEvent")
        try:
            self.generate()
        except ProcessAborted:
            self._invoke("AbortEvent")
            raise
        self.UpdateProgress(1.0)
        self._invoke("EndEvent")

    def GetOutput(self, index: int = 0) -> Any:  # noqa: N802
        """An output, an image of ITK's pipeline that is filled when this filter, it or what depends on it is updated.

        ConfigError where there is no such output.
        """
        return self._output(checks.whole()("the index of GetOutput", index)).image

    def _output(self, index: int) -> PipelineOutput:
        """An output in ITK's pipeline; filled if its data are there."""
        dimension = self._dimension()
        image_type = self.image_type(index, dimension)
        if index not in self._pipeline:
            self._pipeline[index] = made = PipelineOutput(self, index, image_type, dimension)
            made.connect(self.inputs())
            if self._done is not None:
                made.head.UpdateLargestPossibleRegion()
        return self._pipeline[index]

    def _dimension(self) -> int:
        """2 or 3, from the types in brackets or the first image (ConfigError)."""
        if self.DIMENSION is not None:
            return self.DIMENSION
        first = next(self.inputs(), None)
        if first is None:
            raise ConfigError(
                f"expected {self.GetNameOfClass()} to know its images, got none: give their types in brackets, or set "
                "the images first"
            )
        return int(first.GetImageDimension())

    def GetNumberOfOutputs(self) -> int:  # noqa: N802
        """How many outputs there are."""
        return 1

    def GetNumberOfIndexedOutputs(self) -> int:  # noqa: N802
        """The same: all have an index."""
        return self.GetNumberOfOutputs()

    def GetOutputs(self) -> tuple[Any, ...]:  # noqa: N802
        """All outputs."""
        return tuple(self.GetOutput(index) for index in range(self.GetNumberOfOutputs()))

    def GetInputs(self) -> tuple[Any, ...]:  # noqa: N802
        """The images that were set."""
        return tuple(self.inputs())

    def GetNumberOfInputs(self) -> int:  # noqa: N802
        """How many images were set."""
        return len(self.GetInputs())

    def GetNumberOfIndexedInputs(self) -> int:  # noqa: N802
        """The same."""
        return self.GetNumberOfInputs()

    def GraftOutput(self, image: Any) -> None:  # noqa: N802
        """Let the first output show the voxels of ``image``, until it is computed again."""
        self.GraftNthOutput(0, image)

    def GraftNthOutput(self, index: int, image: Any) -> None:  # noqa: N802
        """Let an output show the voxels of ``image``."""
        self._output(index).head.GraftNthOutput(0, image)

    def SetNumberOfWorkUnits(self, value: Any) -> None:  # noqa: N802
        """Accepted, from 1 on: features and fields use torch's threads (``torch.set_num_threads``)."""
        self._work_units = checks.whole(1)("NumberOfWorkUnits", value)

    def GetNumberOfWorkUnits(self) -> int:  # noqa: N802
        """What was set, by default ITK's number of threads."""
        return self._work_units

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        """Set what is given, update, and return the output, as ITK's objects do."""
        self.set_inputs(inputs)
        for name, value in settings.items():
            self.set_option(self.known(name), value)
        self.Update()
        return self.output()

    def output(self) -> Any:
        """What the functions in snake case return: the output, or a tuple of several."""
        outputs = self.GetOutputs()
        return outputs[0] if len(outputs) == 1 else outputs

    def GetProgress(self) -> float:  # noqa: N802
        """Share of the work that is done, 0 to 1."""
        return self._progress

    def UpdateProgress(self, progress: float) -> None:  # noqa: N802
        """Tell the share that is done; raises ProcessAborted where it was asked to stop."""
        self._progress = min(max(float(progress), 0.0), 1.0)
        self._invoke("ProgressEvent")
        self.check_abort()

    def check_abort(self) -> None:
        """Stop here if somebody asked for it (ProcessAborted)."""
        if self._abort:
            raise ProcessAborted(
                f"{self.GetNameOfClass()} was stopped at {self._progress:.0%} by AbortGenerateDataOn: "
                "call Update to compute it again"
            )

    def SetAbortGenerateData(self, value: Any) -> None:  # noqa: N802
        """Stop the running computation before its next step; each ``Update`` starts with False."""
        self._abort = bool(value)

    def GetAbortGenerateData(self) -> bool:  # noqa: N802
        """Whether it is asked to stop."""
        return self._abort

    def AbortGenerateDataOn(self) -> None:  # noqa: N802
        """Ask it to stop."""
        self.SetAbortGenerateData(True)

    def AbortGenerateDataOff(self) -> None:  # noqa: N802
        """Take that back."""
        self.SetAbortGenerateData(False)


def _update(source: Any) -> None:
    """Bring an image up to date that is the output of ITK filters, all of it."""
    for method in ("UpdateOutputInformation", "SetRequestedRegionToLargestPossibleRegion", "Update"):
        if hasattr(source, method):
            getattr(source, method)()
