"""The C interface of the compiled kernels through ctypes. ``src/semreg_kernels.h`` says what each function computes."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p
from pathlib import Path

INTERFACE = 3
"""The version of the interface that this package speaks."""
ENDINGS = {"win32": "dll", "darwin": "dylib"}

_Shape = c_int64 * 3


class Places(ctypes.Structure):
    """``semreg_places``."""

    _fields_ = [
        ("dimension", c_int32), ("table_type", c_int32), ("index_type", c_int32), ("threads", c_int32),
        ("shape", _Shape), ("channels", c_int64), ("places", c_int64), ("rows", c_void_p), ("index", c_void_p),
    ]  # fmt: skip


class Images(ctypes.Structure):
    """``semreg_images``."""

    _fields_ = [
        ("dimension", c_int32), ("type", c_int32), ("threads", c_int32), ("radius", c_int32),
        ("shape", _Shape), ("channels", c_int64),
    ]  # fmt: skip


class Costs(ctypes.Structure):
    """``semreg_costs``."""

    _fields_ = [
        ("dimension", c_int32), ("type", c_int32), ("threads", c_int32), ("smoothing", c_int32),
        ("shape", _Shape), ("wide", _Shape), ("widths", _Shape), ("stride", c_int64), ("channels", c_int64),
        ("candidates", c_int64), ("counted", c_int64), ("unseen", c_double), ("factor", c_double), ("add", c_int32),
        ("offsets", c_void_p), ("near", c_void_p), ("far", c_void_p), ("near_weight", c_void_p),
        ("far_weight", c_void_p),
    ]  # fmt: skip


class Matrix(ctypes.Structure):
    """``semreg_matrix``."""

    _fields_ = [
        ("type", c_int32), ("threads", c_int32), ("before", c_int64), ("inputs", c_int64), ("outputs", c_int64),
        ("after", c_int64), ("row", c_int64), ("column", c_int64), ("values", c_void_p),
    ]  # fmt: skip


class Spline(ctypes.Structure):
    """``semreg_spline``."""

    _fields_ = [
        ("type", c_int32), ("threads", c_int32), ("controls", _Shape), ("places", _Shape), ("limit", c_double),
        ("values", c_void_p * 3), ("slopes", c_void_p * 3), ("coefficients", c_void_p),
    ]  # fmt: skip


SIGNATURES = {
    "semreg_read": [POINTER(Places), c_void_p],
    "semreg_pull": [POINTER(Places), c_void_p, c_void_p],
    "semreg_compare": [POINTER(Places), c_int32, c_void_p, c_void_p, c_void_p, POINTER(c_double), c_void_p],
    "semreg_correlate": [POINTER(Images), c_int32, c_void_p, c_void_p, c_void_p, POINTER(c_double), c_void_p],
    "semreg_cost_volume": [POINTER(Costs), c_void_p, c_int64, c_int64],
    "semreg_choice": [
        c_int32, c_int32, c_int32, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_double, c_void_p,
    ],
    "semreg_patches": [POINTER(Images), c_int64, c_void_p, c_void_p, c_void_p, c_void_p],
    "semreg_product": [POINTER(Matrix), c_void_p, c_void_p],
    "semreg_jacobian": [POINTER(Images), c_void_p, c_void_p],
    "semreg_corners": [POINTER(Images), c_void_p, c_void_p],
    "semreg_compose": [
        POINTER(Images), POINTER(c_int64), POINTER(c_double), POINTER(c_double), c_void_p, c_void_p, c_void_p,
    ],
    "semreg_compression": [POINTER(Spline), POINTER(c_double), c_void_p],
}  # fmt: skip
"""The arguments of each function that returns a status."""


def load(path: Path | None = None) -> ctypes.CDLL:
    """The library, by default the one in this package.

    Raises:
        OSError: it is not there, or not for this machine.
        ImportError: it speaks another version of the interface.
    """
    name = f"libsemreg_kernels.{ENDINGS.get(sys.platform, 'so')}"
    library = ctypes.CDLL(str(path or Path(__file__).with_name(name)))
    found = library.semreg_kernels_interface()
    if found != INTERFACE:
        raise ImportError(f"expected version {INTERFACE} of the kernels' interface, got {found}: install both again")
    library.semreg_kernels_instructions.restype = c_char_p
    for function, arguments in SIGNATURES.items():
        getattr(library, function).argtypes = arguments
        getattr(library, function).restype = c_int32
    return library
