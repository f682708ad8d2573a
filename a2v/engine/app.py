"""The A2V API over HTTP, as an ASGI application that really renders."""

from __future__ import annotations

import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import field, frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from a2v._core import wire
from a2v._core.models import Character, Job, Video, VideoStatus
from a2v.engine.cast import characters
from a2v.engine.guard import Guard, refuse
from a2v.engine.page import PAGE_HEADERS, page
from a2v.engine.pool import Pool, QueueFullError
from a2v.engine.settings import Settings
from a2v.engine.store import Store, Task
from a2v.errors import ConfigurationError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

MAX_BODY = 64 * 1024
LISTED = 2000
"""How many videos `video.list` shows, the newest first: more might not fit a reply."""
ON_PAGE = 12
PREVIEW_SIZE = 512
BUSY_SECONDS = 10
"""When to come back if the queue is full."""


def create_app(settings: Settings | None = None) -> Starlette:
    """The engine as an ASGI application, for a server of your choice (one process: the tasks belong to it).

    The calls: ``GET /v1/a2v/character.list``, ``POST /v1/a2v/video.generate``, ``GET /v1/a2v/video.get``,
    ``GET /v1/a2v/video.list``. Beside them ``GET /`` shows a page, ``GET /health`` tells whether the engine lives, and
    ``/files/`` and ``/previews/`` serve what the replies point to, to whoever knows the URL.

    Args:
        settings: What the engine can be told; ``Settings()`` if ``None``. Clients must send ``settings.token``.

    Returns:
        The application. Its lifespan opens the data folder and starts the renders, and stops them at the end.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with _data_folder(settings.data_dir) as folder, Store(folder / "tasks.sqlite3") as store:
            async with Pool(store, folder, settings) as pool:
                app.state.engine = Engine(store, pool)
                yield

    app = Starlette(
        routes=[
            Route(wire.CHARACTER_LIST, character_list),
            Route(wire.VIDEO_GENERATE, video_generate, methods=["POST"]),
            Route(wire.VIDEO_GET, video_get),
            Route(wire.VIDEO_LIST, video_list),
            Route("/files/{video_id}.mp4", video_file),
            Route("/previews/{model_id}.png", preview_file),
            Route("/health", health),
            Route("/", front_page),
        ],
        middleware=[Middleware(Guard, settings)],
        exception_handlers={HTTPException: _envelope},
        lifespan=lifespan,
    )
    # A redirect has no envelope, and a client with a token does not follow it.
    app.router.redirect_slashes = False
    return app


@contextmanager
def _data_folder(path: Path | None) -> Iterator[Path]:
    if path is None:
        with tempfile.TemporaryDirectory(prefix="a2v-") as folder:
            yield Path(folder)
        return
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the data folder {str(path)!r} cannot be made: {error.strerror}") from None
    yield path.resolve()


@frozen
class Engine:
    """What the calls work with while the application runs."""

    store: Store
    pool: Pool
    drawing: anyio.CapacityLimiter = field(factory=partial(anyio.CapacityLimiter, 1))


def _engine(request: Request) -> Engine:
    engine = request.app.state.engine
    assert isinstance(engine, Engine)  # noqa: S101  # for the type checker: the lifespan put it there
    return engine


async def _envelope(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    headers = dict(error.headers or {})
    plain = {404: f"there is no {request.url.path}", 405: f"{request.url.path} takes {headers.get('Allow')} only"}
    return refuse(error.status_code, plain.get(error.status_code, error.detail), headers=headers)


# -- the calls --------------------------------------------------------------------------------------------------------


async def character_list(request: Request) -> Response:
    """Everybody who can speak."""
    return _success([wire.character_data(one) for one in _characters(request)])


async def video_generate(request: Request) -> Response:
    """Put a video in line."""
    job = await _read_job(request)
    if job.model_id not in characters():
        known = ", ".join(characters())
        raise HTTPException(400, f"there is no character {job.model_id!r}; model_id must be one of: {known}")
    try:
        task = _engine(request).pool.submit(job)
    except QueueFullError:
        return _busy()
    return _success({"video_id": task.video_id})


def _busy() -> Response:
    """Nothing was submitted, and a client should know: by the protocol a 5xx leaves that open, a 429 does not."""
    headers = {"Retry-After": str(BUSY_SECONDS), "X-Ratelimit-Reset": str(int(time.time()) + BUSY_SECONDS)}
    return refuse(429, "the queue is full; try again later", code=wire.TOO_MANY_REQUESTS, headers=headers)


async def _read_job(request: Request) -> Job:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, f"the body must be JSON (Content-Type: application/json), not {media_type!r}")
    try:
        return wire.read_job(await _read_body(request))
    except (ValueError, ProtocolError) as error:
        raise HTTPException(400, str(error)) from None


async def _read_body(request: Request) -> bytes:
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the body must not be longer than {MAX_BODY // 1024} KiB")
    return body


async def video_get(request: Request) -> Response:
    """How far a video is."""
    video_id = request.query_params.get("video_id")
    if not video_id:
        raise HTTPException(400, "video_id is missing from the query")
    task = _engine(request).store.get(video_id)
    if task is None:
        return refuse(404, f"there is no video {video_id!r}", code=wire.NOT_FOUND)
    return _success(_video_data(request, task))


async def video_list(request: Request) -> Response:
    """How far the videos are, the newest first."""
    return _success([_video_data(request, task) for task in _engine(request).store.newest(LISTED)])


def _success(data: object) -> Response:
    return JSONResponse(wire.success(data))


def _video_data(request: Request, task: Task) -> dict[str, str | None]:
    finished = task.status is VideoStatus.FINISHED
    url = f"{request.base_url}files/{task.video_id}.mp4" if finished else None
    return wire.video_data(Video(video_id=task.video_id, status=task.status, video_url=url), task.message)


def _characters(request: Request) -> list[Character]:
    return [
        Character(
            model_id=model_id,
            name=look.display_name,
            display_name=look.display_name,
            gender=look.gender,
            preview_url=f"{request.base_url}previews/{model_id}.png",
        )
        for model_id, look in characters().items()
    ]


# -- beside the calls -------------------------------------------------------------------------------------------------


async def video_file(request: Request) -> Response:
    """A finished video. The URL alone gives access, like the pre-signed ones of the hosted service."""
    engine, video_id = _engine(request), request.path_params["video_id"]
    task = engine.store.get(video_id)
    path = engine.pool.path(video_id)
    if task is None or not path.is_file():
        return refuse(404, "there is no such file", code=wire.NOT_FOUND)
    return FileResponse(path, media_type="video/mp4")


async def preview_file(request: Request) -> Response:
    """A character's picture."""
    model_id = request.path_params["model_id"]
    if model_id not in characters():
        return refuse(404, "there is no such file", code=wire.NOT_FOUND)
    picture = await anyio.to_thread.run_sync(_preview, model_id, limiter=_engine(request).drawing)
    return Response(picture, media_type="image/png", headers={"Cache-Control": "max-age=3600"})


@cache
def _preview(model_id: str) -> bytes:
    # Brings the drawing packages with it, which a server that only renders needs in its children alone.
    from a2v.engine.preview import preview  # noqa: PLC0415

    return preview(model_id, size=PREVIEW_SIZE)


async def health(_: Request) -> Response:
    """That the engine lives; needs no token."""
    return _success({"status": "ok"})


async def front_page(request: Request) -> Response:
    """A page for people."""
    videos = [(task, _video_data(request, task)["video_url"]) for task in _engine(request).store.newest(ON_PAGE)]
    return HTMLResponse(page(_characters(request), videos), headers=PAGE_HEADERS)
