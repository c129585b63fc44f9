"""How the threads of the numerical libraries wait. Imports none of them."""

from __future__ import annotations

import os


def sleep_when_idle() -> None:
    """From now on threads of OpenMP that have nothing to do sleep, where the user has not said otherwise.

    For the command line alone, before torch is loaded. By default they spin until the next piece of work: on a machine
    that others use too, two threads then take several times the processor time of one, and as much longer.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
