"""A registration of nodes: into files, through a process that nobody waits for, and back into nodes."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from SemRegLib.process import Process, Said
from SemRegLib.programs import NoSemreg, Program
from SemRegLib.result import Result
from SemRegLib.scene import Loaded, Selection, load_result, write_inputs

ASKED_MS = 200
"""How often the process is asked what it has said."""


class SemRegLogic(ScriptedLoadableModuleLogic):
    """Nodes into files, a process, and files into nodes."""

    def __init__(self) -> None:
        """Nothing runs."""
        ScriptedLoadableModuleLogic.__init__(self)
        self._process: Process | None = None
        self._folder: Path | None = None
        self.report: Path | None = None
        """The page of the last result."""
        self._timer = qt.QTimer()
        self._timer.setInterval(ASKED_MS)
        self._timer.connect("timeout()", self._ask)

    @property
    def running(self) -> bool:
        """Whether a registration runs."""
        return self._process is not None

    def program(self, python: str) -> Program:
        """The Python to run semreg in; an empty name is Slicer's own."""
        if python:
            return Program(python, slicer.util.startupEnvironment())
        own = shutil.which("PythonSlicer")
        if own is None:
            raise NoSemreg("expected PythonSlicer on Slicer's path, it is not there: choose a Python with semreg in it")
        return Program.own(own, os.environ)

    def start(
        self,
        selection: Selection,
        program: Program,
        on_said: Callable[[Said], None],
        on_end: Callable[[Loaded | None, str], None],
    ) -> None:
        """Write the files and start; ``on_end`` gets the nodes of the result, or why there are none (ValueError)."""
        if self.running:
            raise ValueError("expected one registration at a time, another one runs: wait for it, or cancel it")
        self.close()
        self._folder = Path(slicer.util.tempDirectory())
        job = write_inputs(selection, self._folder)
        self._selection, self._result, self._on_said, self._on_end = selection, job.folder, on_said, on_end
        self._errors: list[str] = []
        self._process = Process(program.words(*job.words()), program.environment)
        self._timer.start()

    def cancel(self) -> None:
        """End what runs."""
        if self._process is not None:
            self._process.cancel()

    def close(self) -> None:
        """End what runs, and remove the files of the last registration, its page too."""
        self._timer.stop()
        self.cancel()
        self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self.report = None

    def _ask(self) -> None:
        """Pass on what the process has said, and its end."""
        process = self._process
        if process is None:
            return
        code = process.code()
        for said in process.news():
            if said.error:
                self._errors.append(said.text)
            self._on_said(said)
        if code is None:
            return
        self._timer.stop()
        self._process = None
        loaded, why = None, ""
        try:
            if process.cancelled:
                why = "Cancelled: nothing was changed."
            elif code != 0:
                why = (self._errors or [f"semreg ended with exit code {code} and said nothing."])[-1]
            else:
                loaded = load_result(Result.read(self._result), self._selection)
                self.report = loaded.result.report
        except (ValueError, RuntimeError) as error:
            logging.getLogger(__name__).exception("the result could not be loaded")
            why = str(error)
        self._on_end(loaded, why)
