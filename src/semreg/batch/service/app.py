"""The answers of the service: who may ask, what can be asked, and what is said. Everything but /health needs the token.

Every error is one sentence, ``{"error": "..."}``. An id that is none and one of a wrong form are the same to who asks.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

import semreg
from semreg.batch.service.archive import packed
from semreg.batch.service.asked import ROLES, TEXTS
from semreg.batch.service.process import hidden
from semreg.batch.service.queue import FullError, Queue
from semreg.batch.service.store import LOG, RESULT, Job, State
from semreg.batch.service.token import Token
from semreg.batch.service.upload import NO_ROOM, receive
from semreg.errors import OutputError
from semreg.runtime.texts import without

logger = logging.getLogger("semreg.service")

HEALTH = "/health"
"""The one page that needs no token."""
BEARER = {"WWW-Authenticate": "Bearer"}
UNKNOWN = HTTPException(404, "expected the id of a job, got one that there is not: GET /jobs lists them")


@dataclass(frozen=True, kw_only=True)
class JobView:
    """What is said of a job."""

    id: str
    state: State
    """``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``."""
    created: str
    started: str | None
    ended: str | None
    before: int
    """How many jobs wait before it."""
    stage: str
    """What of the registration runs."""
    share: float
    """How much of it is done, 0 to 1."""
    error: str | None
    """Why it failed, in one sentence."""
    verdict: str | None
    """``PASS``, ``REVIEW`` or ``FAIL``: whether the result can be relied on."""
    reasons: tuple[str, ...]
    """What the verdict rests on, where it is none of PASS."""


@dataclass(frozen=True, kw_only=True)
class FileView:
    """A file of a result."""

    name: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The answer to a submission."""

    id: str


class Gate:
    """Lets through who has the token, before anything of a request is read."""

    def __init__(self, app: ASGIApp, token: Token) -> None:
        """What is behind it."""
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if scope["path"] == HEALTH or self._token.allows(given[0] if len(given) == 1 else None):
            await self._app(scope, receive, send)
            return
        await _error(401, "expected the token, as Authorization: Bearer TOKEN", BEARER)(scope, receive, send)


def _form() -> dict[str, Any]:
    """What a submission holds, for the description of the service: its body is read piece by piece, and not here."""
    parts = {name: {"type": "string"} for name in TEXTS}
    parts |= {role: {"type": "string", "format": "binary"} for role in ROLES}
    schema = {"type": "object", "required": list(ROLES[:2]), "properties": parts}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


routes = APIRouter()


async def queue_of(request: Request) -> Queue:
    """The jobs of this service."""
    found: Queue = request.app.state.queue
    return found


Jobs = Annotated[Queue, Depends(queue_of)]


async def known(identifier: str, queue: Jobs) -> Job:
    """The job that a path names."""
    job = queue.job(identifier)
    if job is None:
        raise UNKNOWN
    return job


One = Annotated[Job, Depends(known)]


async def finished(job: One) -> Job:
    """The same, with a result."""
    if job.state != "done":
        raise HTTPException(409, f"expected a job that is done, got one that is {job.state}: it has no files")
    return job


Done = Annotated[Job, Depends(finished)]


def view(job: Job, queue: Queue) -> JobView:
    """What is said of a job."""
    share = queue.share(job)
    return JobView(
        id=job.id, state=job.state, created=job.created, started=job.started, ended=job.ended,
        before=queue.before(job), stage=share.stage, share=share.share, error=job.error, verdict=job.verdict,
        reasons=job.reasons,
    )  # fmt: skip


@routes.get(HEALTH)
async def health() -> dict[str, str]:
    """Whether the service lives. Needs no token, and says nothing else."""
    return {"status": "ok"}


@routes.post("/jobs", status_code=202, openapi_extra=_form())
async def submit(request: Request, response: Response, queue: Jobs) -> Accepted:
    """Submit two images, with masks and settings; the id of the job."""
    try:
        with queue.place(), queue.store.incoming() as folder:
            asked = await receive(request, folder, queue.limits.bytes, queue.machine.models)
            job = queue.accept(folder, asked)
    except FullError as error:
        raise HTTPException(429, str(error), {"Retry-After": "60"}) from error
    except OutputError as error:
        logger.error("a job could not be taken: %s", error)
        raise HTTPException(NO_ROOM, "expected room on the disk of the service, there is none: try later") from error
    response.headers["Location"] = f"/jobs/{job.id}"
    return Accepted(id=job.id)


@routes.get("/jobs")
async def jobs(queue: Jobs) -> list[JobView]:
    """All jobs, in the order they came."""
    return [view(job, queue) for job in queue.jobs()]


@routes.get("/jobs/{identifier}")
async def one(job: One, queue: Jobs) -> JobView:
    """How a job stands."""
    return view(job, queue)


@routes.get("/jobs/{identifier}/log", response_class=PlainTextResponse)
def log(job: One, queue: Jobs) -> str:
    """What the registration said, without names of the machine it ran on."""
    folder = queue.store.place(job.id)
    if not (folder / LOG).exists():
        return ""
    return without((folder / LOG).read_text("utf-8", "replace"), hidden(folder, queue.machine.models))


@routes.get("/jobs/{identifier}/files")
def files(job: Done, queue: Jobs) -> list[FileView]:
    """The files of the result."""
    folder = queue.store.place(job.id) / RESULT
    return [FileView(name=name, bytes=(folder / name).stat().st_size) for name in job.outputs]


@routes.get("/jobs/{identifier}/files/{name:path}", response_class=FileResponse)
def file(job: Done, name: str, queue: Jobs) -> FileResponse:
    """A file of the result, by its name in the list of them."""
    if name not in job.outputs:
        raise HTTPException(404, "expected the name of a file of the result, got another: /files lists them")
    return FileResponse(queue.store.place(job.id) / RESULT / name, filename=name.rpartition("/")[2])


@routes.get("/jobs/{identifier}/result.zip", response_class=StreamingResponse)
def result(job: Done, queue: Jobs) -> StreamingResponse:
    """All files of the result in one archive."""
    pieces = packed(queue.store.place(job.id) / RESULT, job.outputs)
    headers = {"Content-Disposition": f'attachment; filename="{job.id}.zip"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


@routes.post("/jobs/{identifier}/cancel")
async def cancel(job: One, queue: Jobs) -> JobView:
    """End a job that waits or runs; what is known of it stays."""
    return view(await queue.cancel(job), queue)


@routes.delete("/jobs/{identifier}", status_code=204, response_model=None)
async def delete(job: One, queue: Jobs) -> None:
    """End a job, and remove all of it."""
    await queue.remove(job)


def make_app(queue: Queue, token: Token) -> FastAPI:
    """The service as an application of ASGI.

    Args:
        queue: the jobs; it starts and stops with the application.
        token: who has it may ask.

    Returns:
        The application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        queue.start()
        yield
        await queue.stop()

    app = FastAPI(title="semreg", version=semreg.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.queue = queue
    app.include_router(routes)
    app.add_middleware(Gate, token=token)
    app.add_exception_handler(AnyHTTPException, _said)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(FileNotFoundError, _gone)
    app.add_exception_handler(Exception, _unforeseen)
    return app


def _error(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers)


async def _said(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, AnyHTTPException)  # noqa: S101 - what it was registered for
    own = {404: "expected a page of the service, got another path", 405: "expected another method for this path"}
    unsaid = error.detail in ("Not Found", "Method Not Allowed")
    return _error(error.status_code, own[error.status_code] if unsaid else str(error.detail), error.headers)


async def _gone(request: Request, error: Exception) -> JSONResponse:
    """A job was removed while it was asked for."""
    del error
    return await _said(request, UNKNOWN)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    del request, error
    return _error(422, "expected a request as /openapi.json describes it, got another")


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    del request
    logger.error("expected no %s while answering, got one, a fault of semreg", type(error).__name__)
    return _error(500, "expected no such error, a fault of semreg: who runs the service finds it in its log")
