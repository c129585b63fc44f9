"""The service as a whole: its folder, its lock, its token, its port, and how it ends."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from semreg.batch.lock import batch_lock
from semreg.batch.service.app import make_app
from semreg.batch.service.process import Machine
from semreg.batch.service.queue import Limits, Queue
from semreg.batch.service.store import Store
from semreg.batch.service.token import made_token, read_token
from semreg.errors import ConfigError

TOKEN_FILE = "token"  # noqa: S105 - its name, no secret
HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
"""Of every answer: images of patients stay in no cache."""
GRACE_SECONDS = 5
"""How long requests that are being answered may take when the service stops."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What ``semreg serve`` is asked for."""

    folder: Path
    machine: Machine
    limits: Limits = field(default_factory=Limits)
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    """None: ``token`` in the folder, made where there is none."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the service is, and where its token."""

    url: str
    token_file: Path


def serve(service: Service, on_start: Callable[[Address], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; jobs that run then wait for the next start.

    Args:
        service: what is served, and where.
        on_start: called once it listens.

    Raises:
        ConfigError: for a host that others reach without a token that was chosen, a token that is none, and an address
            that cannot be used.
        OutputError: for a folder that cannot be written, or that another service has.
    """
    if service.token_file is None and not is_loopback(service.host):
        raise ConfigError(
            f"expected --token-file with the host {service.host}, which other machines reach, got none: name one"
        )
    for folder in service.machine.models:
        if not folder.is_dir():
            raise ConfigError(f"expected a folder with models, got {folder}: there is none")
    store = Store(service.folder)
    with batch_lock(service.folder, what="service"):
        path = service.token_file or service.folder / TOKEN_FILE
        token = made_token(path) if service.token_file is None else read_token(path)
        with listening(service.host, service.port) as listener:
            app = make_app(Queue(store, service.limits, service.machine), token)
            server = uvicorn.Server(uvicorn.Config(
                app, loop="asyncio", http="h11", ws="none", lifespan="on", log_config=None, access_log=False,
                server_header=False, proxy_headers=False, timeout_graceful_shutdown=GRACE_SECONDS, headers=HEADERS,
            ))  # fmt: skip
            for number in (signal.SIGTERM, signal.SIGINT):  # from here on: uvicorn takes them only while it runs
                signal.signal(number, server.handle_exit)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup wants it
                signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
            host = f"[{service.host}]" if ":" in service.host else service.host
            on_start(Address(url=f"http://{host}:{listener.getsockname()[1]}", token_file=path))
            server.run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens (ConfigError where it cannot)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: else asyncio leaves Nagle's wait on
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen()
        return found
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"expected to listen on {host}, port {port}, got: {reason}; name another --port") from error
