"""A Dask cluster: a client of its scheduler, and whether its workers can be used. Imports ``distributed`` when asked.

Knows nothing of what runs there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import semreg
from semreg.errors import ConfigError, DeviceError

TIMEOUT_SECONDS = 15.0
"""How long the scheduler, and the first worker, may take to answer."""


@contextmanager
def client_at(address: str, timeout: float) -> Iterator[Any]:
    """A client of the scheduler at ``address``, ``tcp://host:8786``.

    Raises ConfigError without ``distributed``, DeviceError where nothing answers within ``timeout`` seconds.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise ConfigError(
            "expected the package distributed for --scheduler, it is not installed: pip install 'semreg[dask]'"
        ) from None
    try:
        distributed.comm.resolve_address(address)  # a client of no address cannot be closed in order
        client = distributed.Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise DeviceError(
            f"expected a Dask scheduler at {address}, got no answer that fits: {first_line(error)}; "
            "start one with `dask scheduler`, or leave --scheduler out"
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=timeout)


def check_workers(client: Any, address: str, paths: Sequence[str], timeout: float) -> None:
    """Refuse (DeviceError) a cluster without workers, with other versions, or that does not see the ``paths``."""
    try:
        client.wait_for_workers(1, timeout=timeout)
    except OSError as error:
        raise DeviceError(
            f"expected a worker at {address}, got none in {timeout:g} s: start some with `dask worker`"
        ) from error
    for worker, (python, version, missing) in client.run(_probe(paths)).items():
        mine = f"{sys.version_info.major}.{sys.version_info.minor}"
        if version is None:
            raise DeviceError(f"expected semreg on the worker {worker}, got a Python without it: install it there")
        if (python, version) != (mine, semreg.__version__):
            raise DeviceError(
                f"expected Python {mine} and semreg {semreg.__version__} on the worker {worker}, "
                f"got Python {python} and semreg {version}: install the same versions everywhere"
            )
        if missing is not None:
            raise DeviceError(
                f"expected the worker {worker} to see {missing}, it does not: "
                "put the images and the output on a file system that all machines share, under the same paths"
            )


def _probe(paths: Sequence[str]) -> Any:
    """A function for the workers that needs no semreg there: versions, and the first of ``paths`` they cannot see."""

    def probe() -> tuple[str, str | None, str | None]:
        import pathlib as here
        import sys as python

        try:
            from semreg import __version__ as found
        except ImportError:
            return f"{python.version_info.major}.{python.version_info.minor}", None, None
        missing = next((path for path in paths if not here.Path(path).exists()), None)
        return f"{python.version_info.major}.{python.version_info.minor}", found, missing

    return probe


def first_line(error: BaseException) -> str:
    """Of what an error says."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
