"""The module semreg of 3D Slicer: two volumes, a registration in a process of its own, a transform for the moving one.

What does not need its window is in ``SemRegLib``.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import qt
import slicer
from SemRegLib.forms import node_row, path_row, section
from SemRegLib.logic import SemRegLogic
from SemRegLib.points import flipped
from SemRegLib.process import Process, Said
from SemRegLib.programs import OPEN, NoSemreg, install_words, packages_folder
from SemRegLib.scene import Loaded, Selection
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

VOLUMES = ["vtkMRMLScalarVolumeNode"]
MASKS = ["vtkMRMLLabelMapVolumeNode"]
POINTS = ["vtkMRMLMarkupsFiducialNode"]


class SemReg(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent: Any) -> None:
        """Say what the module is."""
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "semreg"
        self.parent.categories = ["Registration"]
        self.parent.dependencies = []
        self.parent.contributors = ["The semreg developers"]
        self.parent.helpText = (
            "Aligns and deforms the moving volume onto the fixed one by features of pretrained models or descriptors, "
            "and says what to think of the result. It is research software and no medical device."
        )
        self.parent.acknowledgementText = (
            "semreg builds on torch, SimpleITK and published methods: see its CITATION.cff."
        )


class SemRegWidget(ScriptedLoadableModuleWidget):
    """The window of the module."""

    def setup(self) -> None:
        """Build it."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SemRegLogic()
        images = section(self.layout, "Images")
        self.fixed = node_row(images, "Fixed volume", VOLUMES, none=False)
        self.moving = node_row(images, "Moving volume", VOLUMES, none=False)
        more = section(self.layout, "Masks and landmarks", collapsed=True)
        self.fixedMask = node_row(more, "Fixed mask", MASKS)
        self.movingMask = node_row(more, "Moving mask", MASKS)
        self.fixedPoints = node_row(more, "Landmarks, fixed", POINTS)
        self.movingPoints = node_row(more, "Landmarks, moving", POINTS)
        settings = section(self.layout, "Settings")
        self.preset, self.align = qt.QComboBox(), qt.QComboBox()
        self.fast = qt.QCheckBox()
        self.model = qt.QLineEdit()
        self.model.placeholderText = "mind, intensity, a name or a file; empty: what the preset says"
        for text, widget in (
            ("Preset", self.preset),
            ("Align first", self.align),
            ("Fast", self.fast),
            ("Model", self.model),
        ):
            settings.addRow(text, widget)
        self.models = path_row(settings, "Folder of models", "Where semreg models fetch has put networks.", folder=True)
        program = section(self.layout, "Installation", collapsed=True)
        hint = "A Python in which semreg is installed; empty: Slicer's own."
        self.python = path_row(program, "Python", hint, folder=False)
        self.source = qt.QLineEdit("semreg")
        self.source.toolTip = "What pip installs: semreg, where an index has it, or the path of a wheel or of a clone."
        self.install = qt.QPushButton("Install for Slicer")
        program.addRow("Install from", self.source)
        program.addRow(self.install)
        self.apply, self.bar, self.verdict, self.said = qt.QPushButton(), qt.QProgressBar(), qt.QLabel(), qt.QTextEdit()
        self.report = qt.QPushButton("Open the report")
        self.report.enabled = False
        self.bar.setRange(0, 1000)
        self.verdict.wordWrap = True
        self.said.readOnly = True
        for widget in (self.apply, self.bar, self.verdict, self.report, self.said):
            self.layout.addWidget(widget)
        self.apply.connect("clicked(bool)", self.onApply)
        self.report.connect("clicked(bool)", self.onReport)
        self.install.connect("clicked(bool)", self.onInstall)
        self.python.connect("currentPathChanged(QString)", self.onPython)
        for selector in (self.fixed, self.moving):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self.onNodes)
        self._fill((OPEN,), (OPEN,))
        self.onNodes()

    def cleanup(self) -> None:
        """End what runs, and remove what it wrote, when Slicer closes."""
        self.logic.close()

    def onNodes(self, _node: Any = None) -> None:
        """Let the button say what it does now."""
        self.apply.text = "Cancel" if self.logic.running else "Register"
        self.apply.enabled = self.logic.running or bool(self.fixed.currentNode() and self.moving.currentNode())

    def enter(self) -> None:
        """Ask the installation what it offers, once, when the module is opened."""
        if self.preset.count == 1:
            self.onPython()

    def onPython(self, _path: str = "") -> None:
        """Ask the chosen Python which presets it has."""
        try:
            choices = self.logic.program(self.python.currentPath).describe().choices
        except NoSemreg as error:
            self.said.append(str(error))
            return
        self._fill(choices["preset"], choices["align"])

    def onInstall(self) -> None:
        """Install semreg into a folder of its own, if the user agrees."""
        asked = (
            f"Install {self.source.text} with torch and what else it needs, some gigabytes, into {packages_folder()}? "
            "pip fetches it from the package index. No package of Slicer's own is replaced."
        )
        if slicer.util.confirmOkCancelDisplay(asked):
            with slicer.util.tryWithErrorDisplay("semreg could not be installed.", waitCursor=True):
                slicer.util.pip_install(install_words(self.source.text))
                self.onPython()

    def onApply(self) -> None:
        """Start, or end what runs."""
        if self.logic.running:
            self.logic.cancel()
            return
        self.said.clear()
        self.verdict.text = ""
        self.bar.value = 0
        self.report.enabled = False
        with slicer.util.tryWithErrorDisplay("The registration could not be started."):
            program = self.logic.program(self.python.currentPath)
            program.describe()  # one sentence now rather than an error of Python later
            self.logic.start(self._selection(), program, self.onSaid, self.onEnd)
        self.onNodes()

    def onSaid(self, said: Said) -> None:
        """Show how far it is, and what it says."""
        if said.share is not None:
            self.bar.value = round(1000 * said.share)
        if said.stage:
            self.bar.format = f"{said.stage} %p %"
        if said.text:
            self.said.append(said.text)

    def onEnd(self, loaded: Loaded | None, why: str) -> None:
        """Show the verdict, or why there is no result."""
        self.onNodes()
        self.bar.format = "%p %"
        if loaded is None:
            self.verdict.text = why
            return
        self.bar.value = 1000
        bad = [check for check in loaded.result.checks if check.level != "PASS"]
        self.verdict.text = f"Verdict: {loaded.result.level or 'not judged'}"
        self.said.append("\n".join(f"{check.level}: {check.sentence}" for check in bad))
        self.report.enabled = loaded.result.report is not None
        slicer.util.setSliceViewerLayers(
            background=self.fixed.currentNode(), foreground=self.moving.currentNode(), foregroundOpacity=0.5
        )

    def onReport(self) -> None:
        """Open the page of the last result in the browser."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.logic.report)))

    def _selection(self) -> Selection:
        return Selection(
            fixed=self.fixed.currentNode(),
            moving=self.moving.currentNode(),
            fixed_mask=self.fixedMask.currentNode(),
            moving_mask=self.movingMask.currentNode(),
            fixed_points=self.fixedPoints.currentNode(),
            moving_points=self.movingPoints.currentNode(),
            preset=self.preset.currentText,
            align=self.align.currentText,
            model=self.model.text.strip(),
            models=self.models.currentPath,
            fast=self.fast.checked,
        )

    def _fill(self, presets: tuple[str, ...], alignments: tuple[str, ...]) -> None:
        for widget, values in ((self.preset, presets), (self.align, alignments)):
            widget.clear()
            widget.addItems(list(values))


class SemRegTest(ScriptedLoadableModuleTest):
    """Slicer's own test of the module: a pair of phantoms that semreg makes, registered."""

    def runTest(self) -> None:
        """Run it."""
        slicer.mrmlScene.Clear()
        self.test_registers_a_phantom()

    def test_registers_a_phantom(self) -> None:
        """The moving volume lies under a transform, and the phantom's landmarks come closer."""
        logic = SemRegLogic()
        program = logic.program("")
        folder = Path(slicer.util.tempDirectory())
        made = Process(
            [program.python, "-m", "semreg", "demo", "--images-only", "-o", str(folder)], program.environment
        )
        self.assertEqual(made.wait(600), 0)
        nodes = {name: slicer.util.loadVolume(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving")}
        ends: list[tuple[Loaded | None, str]] = []
        logic.start(Selection(**nodes, fast=True), program, lambda _: None, lambda *end: ends.append(end))
        while not ends:
            slicer.app.processEvents()
        loaded, why = ends[0]
        self.assertIsNotNone(loaded, why)
        self.assertIs(nodes["moving"].GetParentTransformNode(), loaded.transform)
        back = loaded.transform.GetTransformToParent()  # of what lies under the transform: moving points to the fixed
        before, after = (_median_distance(folder, way) for way in (None, back))
        self.assertLess(after, before / 2)
        logic.close()


def _median_distance(folder: Path, back: Any) -> float:
    """Of the phantom's landmarks in mm, those of the moving image brought ``back``; None: as they are."""
    points = {}
    for name in ("fixed", "moving"):
        rows = (folder / f"{name}_points.csv").read_text(encoding="utf-8").splitlines()[1:]
        points[name] = [flipped([float(value) for value in row.split(",")]) for row in rows]
    moved = points["moving"] if back is None else [back.TransformPoint(point) for point in points["moving"]]
    return statistics.median(map(math.dist, points["fixed"], moved))
