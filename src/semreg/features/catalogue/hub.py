"""The Hugging Face Hub, or a mirror of it: asks for a file and reads it. The only place that opens a connection.

Files come by plain HTTP and not by the Hub's chunk store, so that a mirror is enough and nothing is cached elsewhere.
What the client would take from the environment (endpoint, token) is passed explicitly.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from semreg.errors import ConfigError, ModelError, ModelNotFoundError, OutputError

PUBLIC = "https://huggingface.co"
TIMEOUT_S = 10.0
"""Longest wait for an answer, and between two blocks of a file."""
BLOCK = 1 << 18

Progress = Callable[[int, int | None], None]
"""Bytes that have come, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A file of a repository at a revision (commit, branch or tag), and who is asked for it."""

    repository: str
    path: str
    revision: str
    folder: Path
    """Where the file is to go, for messages."""
    mirror: str | None = None
    token: str | None = None

    @property
    def endpoint(self) -> str:
        """Address of the hub, without a slash at the end."""
        return (self.mirror or PUBLIC).rstrip("/")

    def __str__(self) -> str:
        return f"{self.path} of {self.repository} at {self.revision[:12]} from {self.endpoint}"


class Offer(NamedTuple):
    """What the hub has: the commit, the size in bytes and, for large files, their SHA-256."""

    revision: str
    size: int | None
    sha256: str | None


def ask(request: Request) -> Offer:
    """What the hub has for ``request``; raises ModelNotFoundError, ModelError and, without the client, ConfigError."""
    client = _client()
    _check_address(request.endpoint)
    with _explained(client, request):
        metadata = client.get_hf_file_metadata(
            _url(client, request), token=request.token or False, timeout=TIMEOUT_S, endpoint=request.endpoint
        )
    if metadata.commit_hash is None:
        raise ModelError(f"expected a hub that names its commits, got {request.endpoint}: give another mirror")
    large = metadata.etag is not None and re.fullmatch("[0-9a-f]{64}", metadata.etag)
    return Offer(metadata.commit_hash, metadata.size, metadata.etag if large else None)


def download(request: Request, target: Path, size: int | None, on_progress: Progress | None) -> str:
    """Write the file to ``target`` and return its SHA-256.

    Raises ModelNotFoundError where the transfer fails and OutputError where ``target`` cannot be written; the caller
    removes what was written by then.
    """
    client = _client()
    headers = client.utils.build_hf_headers(token=request.token or False, library_name="semreg")
    headers["accept-encoding"] = "identity"  # sizes are those of the file
    digest, come = hashlib.sha256(), 0
    stream = client.get_session().stream
    url = _url(client, request)
    with (
        _explained(client, request),
        stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response,
    ):
        if response.status_code != 200:
            raise _refused(response.status_code, request)
        with _new_file(target) as write:
            for block in response.iter_bytes(BLOCK):
                write(block)
                digest.update(block)
                come += len(block)
                if on_progress is not None:
                    on_progress(come, size)
    if size is not None and come != size:
        raise ModelNotFoundError(f"expected {size} bytes of {request}, got {come}: fetch it again")
    return digest.hexdigest()


def _client() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        message = "expected the package huggingface_hub to fetch models, got none: pip install 'semreg[hub]'"
        raise ConfigError(message) from error
    return huggingface_hub


def _url(client: Any, request: Request) -> str:
    url: str = client.hf_hub_url(request.repository, request.path, revision=request.revision, endpoint=request.endpoint)
    return url


def _check_address(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or " " in endpoint:
        raise ConfigError(f"expected a mirror as https://host, got {endpoint!r}")


@contextmanager
def _new_file(target: Path) -> Iterator[Callable[[bytes], None]]:
    """Writes blocks to a file that is not there yet; what the disk refuses is an OutputError."""
    try:
        file = target.open("xb")
    except OSError as error:
        raise _unwritable(target, error) from error

    def write(block: bytes) -> None:
        try:
            file.write(block)
            file.flush()
        except OSError as error:
            raise _unwritable(target, error) from error

    try:
        yield write
    finally:
        with suppress(OSError):  # a full disk refuses once more what it refused before
            file.close()


def _unwritable(target: Path, error: OSError) -> OutputError:
    return OutputError(f"expected to write a model to {target.parent}, got: {error.strerror or error}; make room there")


@contextmanager
def _explained(client: Any, request: Request) -> Iterator[None]:
    """What goes wrong between here and the hub, in one sentence."""
    try:
        yield
    except (ModelError, OutputError):
        raise
    except client.errors.HfHubHTTPError as error:
        raise _refused(error.response.status_code, request) from error
    except client.errors.HFValidationError as error:
        raise ConfigError(f"expected a revision that can be, got {request.revision!r}: {error}") from error
    except (OSError, client.errors.HTTPError) as error:
        reason = str(error) or type(error).__name__
        raise ModelNotFoundError(
            f"expected {request}, got no connection or a broken one ({reason}): "
            f"copy the file to {request.folder / request.path} by hand, or give a mirror"
        ) from error


def _refused(status: int, request: Request) -> ModelNotFoundError:
    by_hand = f"copy the file to {request.folder / request.path} by hand"
    if status in (401, 403):
        return ModelNotFoundError(
            f"expected {request}, got HTTP {status}, a repository that is closed or not there: "
            f"give a token that may read it, or {by_hand}"
        )
    if status == 404:
        return ModelNotFoundError(
            f"expected {request}, got HTTP 404, no such file or revision: give another revision, or {by_hand}"
        )
    return ModelNotFoundError(f"expected {request}, got HTTP {status}: try again later, give a mirror, or {by_hand}")
