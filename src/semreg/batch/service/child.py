"""The process of a job: ``semreg`` with the words it is given, which does not outlive the service."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def follow(pipe: int) -> None:
    """Kill this process and all that it has started as soon as nobody holds the other end of the pipe."""
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=follow, args=(sys.stdin.fileno(),), daemon=True).start()
    runpy.run_module("semreg", run_name="__main__", alter_sys=True)
