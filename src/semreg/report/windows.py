"""Grey values as bytes, and which of them are shown as black and as white. Knows nothing of geometry and of pages.

One byte a voxel must hold more than one window: of CT most bytes go to soft tissue, the others to lung and bone; of any
other image most go to what lies between the 0.5th and the 99.5th percentile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.preprocess.modality import are_hounsfield
from semreg.report.colours import Bytes

SAMPLES = 200_000
"""Voxels that percentiles are found from."""
CT_KNOTS = ((-1024.0, 0.0), (-200.0, 64.0), (300.0, 192.0), (2000.0, 255.0))
"""HU and bytes, linear between."""
PERCENTILES = (0.0, 0.5, 99.5, 100.0)
PERCENTILE_BYTES = (0.0, 6.0, 246.0, 255.0)
LUNG_SHARE = 0.08
"""Share of the voxels that are lung from which CT is shown from air on."""


@dataclass(frozen=True)
class Window:
    """The grey values that are shown as black and as white."""

    low: float
    high: float
    name: str = ""

    def grey(self, values: npt.NDArray[np.float64]) -> Bytes:
        """Values of any shape as bytes."""
        scaled = (values - self.low) * (255.0 / max(self.high - self.low, 1e-12))
        return np.asarray(np.rint(np.clip(np.nan_to_num(scaled), 0, 255)), dtype=np.uint8)


SOFT_TISSUE, LUNG = Window(-160.0, 240.0, "Soft tissue"), Window(-1350.0, 150.0, "Lung")
BONE, ALL_CT = Window(-500.0, 1300.0, "Bone"), Window(-1000.0, 400.0, "Lung and soft tissue")


@dataclass(frozen=True)
class Code:
    """How the values of an image become bytes, and the windows that can be chosen for it."""

    values: tuple[float, ...]
    """Rising."""
    bytes: tuple[float, ...]
    """Of ``values``; linear between, and the first and the last beyond."""
    windows: tuple[Window, ...]
    """The first is shown at first."""
    unit: str = ""

    @classmethod
    def of(
        cls, data: Tensor, background: float | None = None, *, ct: bool | None = None, shown: Tensor | None = None
    ) -> Code:
        """For an image (1, *S).

        Args:
            data: the image.
            background: what counts as nothing.
            ct: whether its values are Hounsfield units; None: as they look.
            shown: the part that is looked at, of any shape, where it is not all.

        Returns:
            Of CT its usual windows, of any other image windows between percentiles of what is not background.
        """
        values = _sampled(data)
        if not len(values):
            return cls((0.0, 1.0), (0.0, 255.0), (Window(0.0, 1.0, "All values"),))
        if are_hounsfield(values) if ct is None else ct:
            looked = values if shown is None else _sampled(shown)
            lung = float(((looked > -900) & (looked < -500)).double().mean()) if len(looked) else 0.0
            order = (ALL_CT, SOFT_TISSUE, LUNG, BONE) if lung > LUNG_SHARE else (SOFT_TISSUE, LUNG, BONE, ALL_CT)
            return cls(tuple(v for v, _ in CT_KNOTS), tuple(b for _, b in CT_KNOTS), order, "HU")
        content = values if background is None else values[values != background]
        return cls._of_percentiles((content if len(content) else values).numpy(), float(values.min()))

    @classmethod
    def _of_percentiles(cls, content: npt.NDArray[np.float64], least: float) -> Code:
        low, p05, p2, p5, p95, p98, p995, high = map(float, np.percentile(content, (0, 0.5, 2, 5, 95, 98, 99.5, 100)))
        knots: list[tuple[float, float]] = []
        for value, byte in zip((min(low, least), p05, p995, high), PERCENTILE_BYTES, strict=True):
            if not knots or value > knots[-1][0]:
                knots.append((value, byte))
        shares = (("0.5 to 99.5 %", p05, p995), ("2 to 98 %", p2, p98), ("5 to 95 %", p5, p95))
        pairs = (*shares, ("All values", low, high))
        windows = tuple(Window(a, b if b > a else a + 1.0, name) for name, a, b in pairs)
        return cls(tuple(v for v, _ in knots), tuple(b for _, b in knots), windows)

    @property
    def window(self) -> Window:
        """The one that is shown at first."""
        return self.windows[0]

    @property
    def table(self) -> npt.NDArray[np.float64]:
        """The value that each of the 256 bytes stands for."""
        return np.interp(np.arange(256), self.bytes, self.values)

    def encode(self, values: Tensor) -> Bytes:
        """Values of any shape as bytes; what is no number as the lowest."""
        found = np.interp(values.nan_to_num(nan=self.values[0]).numpy(), self.values, self.bytes)
        found += 0.5
        return np.asarray(found, dtype=np.uint8)

    def shown(self, coded: Bytes, window: Window | None = None) -> Bytes:
        """Bytes of ``encode`` as grey in a window."""
        shown: Bytes = (window or self.window).grey(self.table)[coded]
        return shown


def _sampled(data: Tensor) -> Tensor:
    """Some finite values of an image (N,)."""
    flat = data.reshape(-1)
    values = flat[:: max(1, flat.numel() // SAMPLES)].double()
    return values[torch.isfinite(values)]
