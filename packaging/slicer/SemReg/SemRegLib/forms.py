"""Parts of the module's window."""

from __future__ import annotations

from typing import Any

import ctk
import qt
import slicer


def section(layout: Any, title: str, *, collapsed: bool = False) -> Any:
    """A part of the window with a title; its rows."""
    button = ctk.ctkCollapsibleButton()
    button.text, button.collapsed = title, collapsed
    layout.addWidget(button)
    return qt.QFormLayout(button)


def node_row(form: Any, text: str, kinds: list[str], *, none: bool = True) -> Any:
    """A row to choose a node of the scene."""
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = kinds
    selector.addEnabled = selector.removeEnabled = False
    selector.noneEnabled = none
    selector.setMRMLScene(slicer.mrmlScene)
    form.addRow(text, selector)
    return selector


def path_row(form: Any, text: str, hint: str, *, folder: bool) -> Any:
    """A row to choose a file or a folder."""
    edit = ctk.ctkPathLineEdit()
    edit.filters = ctk.ctkPathLineEdit.Dirs if folder else ctk.ctkPathLineEdit.Files
    edit.toolTip = hint
    form.addRow(text, edit)
    return edit
