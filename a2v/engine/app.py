"""The engine as an ASGI application: the routes of the A2V API, of uploads and files, and of the web page.

A request passes ``AccessMiddleware`` first, so the code here may assume that it is allowed. ``video.generate`` stores a task
and returns its ``video_id`` at once; the ``RenderQueue`` does the rest. ``voice.generate`` stores a speech, and an upload stores a
recording. All other calls only read. ``wire`` writes the JSON; the client reads it with the same module.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote, urlsplit

import anyio
import anyio.to_thread
from attrs import asdict, evolve, field, frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from a2v._core import wire
from a2v._core.speakers import Speakers
from a2v._values.models import Avatar, Character, Pose, Speech, Video, VideoStatus, Voice
from a2v.engine import voices
from a2v.engine.characters import camera_poses
from a2v.engine.characters.catalogue import Catalogue, Characters, is_built_in, portable
from a2v.engine.data_folder import DATABASE, open_data_folder
from a2v.engine.errors import AudioError, SpeechError
from a2v.engine.http_connections import extend_body_deadline
from a2v.engine.metrics import MEDIA_TYPE
from a2v.engine.middleware import AccessMiddleware, busy_response, error_response, unavailable_response
from a2v.engine.openapi import openapi_document
from a2v.engine.page import PAGE_HEADERS, PageVideo, page_html, page_state
from a2v.engine.recording_fetcher import MAX_BYTES, MAX_SECONDS, check_audio_url
from a2v.engine.render_queue import BusyError, RenderQueue
from a2v.engine.renderer import Renderer, render_in_child
from a2v.engine.settings import Revision, Settings
from a2v.engine.speeches import NO_WORDS, speech_id_of, write_wav
from a2v.engine.task_store import Task, TaskStore, Upload
from a2v.engine.uploads import UPLOAD, UPLOAD_GONE, UploadError, clean_name
from a2v.engine.video_options import CAPTIONS, container_of, has_captions_file, read_options
from a2v.engine.video_response import MEDIA_TYPES, VideoResponse
from a2v.errors import ConfigurationError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.requests import Request

    from a2v._values.jobs import Job
    from a2v.engine.characters import CameraPose
    from a2v.engine.characters import Character as EngineCharacter
    from a2v.engine.dask_renderer import DaskRenderer
    from a2v.engine.voices import Utterance

T = TypeVar("T")

MAX_BODY = 1024 * 1024
"""The largest body of a request in bytes, except for uploads."""
MAX_WAITING_TEXTS = 50
"""How many texts may wait for a voice; ``voice.generate`` rejects others."""
MAX_LISTED = 2000
"""The maximum number of videos in `video.list`, if they fit into a response."""
VIDEOS_ON_PAGE = 24
PAGE_WAIT_SECONDS = 25.0
"""How long a request of the page waits for a change; proxies give up after 30 or 60 s."""
PAGE_INTERVAL = 0.2
"""How often such a request checks for a change, in seconds."""
PREVIEW_SIZE = 512
"""The side of a preview picture in pixels."""
RENDER_FAILED = 500
"""The code of a failed render in revision `seed`, whose responses have no status. The protocol defines none."""


def create_app(settings: Settings | None = None, *, renderer: Renderer | None = None) -> Starlette:
    """Return the engine as an ASGI application, for a server of your choice. Run one process: it owns the data folder.

    The calls are ``GET /v1/a2v/character.list``, ``POST /v1/a2v/video.generate``, ``GET /v1/a2v/video.get`` and, in the later
    revision, ``GET /v1/a2v/video.list``, ``avatar.list`` and ``avatar-pose.list``, ``GET /v1/tts/voice.list`` and ``POST
    /v1/tts/voice.generate``; ``/v1/a2v/uploads`` takes recordings. ``GET /openapi.json`` describes them. In addition, ``GET /`` is a
    page, ``GET /health`` reports whether the engine works, ``GET /metrics`` has its metrics, and ``/files/``, ``/masks/``,
    ``/previews/``, ``/speeches/`` and ``/voices/`` serve the URLs in responses to everyone who knows them.

    Args:
        settings: The settings. ``None``: ``Settings()``. Clients must send ``settings.token``.
        renderer: The renderer, see ``a2v.engine.renderer``. ``None``: the cluster of ``settings.dask``, or else child
            processes on this machine.

    Returns:
        The application. Its lifespan opens the data folder, and starts and stops the renders.

    Raises:
        ConfigurationError: Both ``renderer`` and ``settings.dask`` are given.
        ImportError: ``settings.dask`` needs the extra ``dask``, which is not installed.
    """
    settings = settings or Settings()
    dask_renderer = _dask_renderer(settings.dask, renderer) if settings.dask else None

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with _data_folder(settings.data_dir) as folder, TaskStore(folder / DATABASE) as store:
            if dask_renderer:
                await dask_renderer.check(settings.workers)
            catalogue = Catalogue(settings.characters)
            await catalogue.current()  # logs invalid files before the first request
            async with RenderQueue(store, folder, settings, dask_renderer or renderer or render_in_child) as queue:
                app.state.engine = Engine(store, queue, settings, catalogue)
                yield

    public = _public_routes()
    page = [
        Route("/", front_page),
        Route("/page/videos", page_videos, methods=["GET", "POST"]),
        Route("/page/uploads", page_upload, methods=["POST"]),
    ]
    uncounted = [
        Route(wire.UPLOADS, upload_limits),
        Route(f"{wire.UPLOADS}/{{sha256}}", upload, methods=["GET", "PUT"]),
        Route("/metrics", metrics),
    ]
    app = Starlette(
        routes=[*_api_routes(settings.revision), *uncounted, *public, *page],
        middleware=[Middleware(AccessMiddleware, settings, public=public, uncounted=uncounted, page=page)],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    # A redirect would have no envelope, and clients do not send their token to its target.
    app.router.redirect_slashes = False
    return app


def _dask_renderer(address: str, renderer: Renderer | None) -> DaskRenderer:
    if renderer:
        raise ConfigurationError("both a renderer and settings.dask are given: leave one out")
    from a2v.engine.dask_renderer import DaskRenderer  # noqa: PLC0415  # an extra

    return DaskRenderer(address)


def _public_routes() -> list[Route]:
    """Return the routes that need no token. A ``video_id`` is 128 random bits, so the URL of a video is a secret itself."""
    return [
        Route("/files/{name:path}", video_file),
        Route("/masks/{video_id:path}.mp4", mask_file),
        Route("/previews/{subject_id:path}.png", preview_file),
        Route("/speeches/{speech_id:path}.wav", speech_file),
        Route("/voices/{voice_name:path}.wav", voice_sample),
        Route("/health", health),
        Route("/openapi.json", openapi),
    ]


def _api_routes(revision: Revision) -> list[Route]:
    calls = [
        Route(wire.CHARACTER_LIST, character_list),
        Route(wire.VIDEO_GENERATE, video_generate, methods=["POST"]),
        Route(wire.VIDEO_GET, video_get),
    ]
    later = [
        Route(wire.VIDEO_LIST, video_list),
        Route(wire.AVATAR_LIST, avatar_list),
        Route(wire.AVATAR_POSE_LIST, avatar_pose_list),
        Route(wire.VOICE_LIST, voice_list),
        Route(wire.VOICE_GENERATE, voice_generate, methods=["POST"]),
    ]
    return calls + later if revision == "later" else calls


@contextmanager
def _data_folder(path: Path | None) -> Iterator[Path]:
    if path is None:
        with tempfile.TemporaryDirectory(prefix="a2v-") as folder:
            yield Path(folder)
        return
    yield open_data_folder(path)


@frozen
class Engine:
    """The state of the running application."""

    store: TaskStore
    queue: RenderQueue
    settings: Settings
    catalogue: Catalogue
    stopping: anyio.Event = field(factory=anyio.Event)
    """Set when the server stops, so that the requests of pages end."""
    preview_limiter: anyio.CapacityLimiter = field(factory=partial(anyio.CapacityLimiter, 1))
    voice_limiter: anyio.CapacityLimiter = field(factory=partial(anyio.CapacityLimiter, 1))


def _engine(request: Request) -> Engine:
    engine = request.app.state.engine
    assert isinstance(engine, Engine)  # noqa: S101  # for type checkers; set by the lifespan
    return engine


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # only registered for this class
    headers = dict(error.headers or {})
    path = quote(request.url.path)  # it may contain control characters
    missing = f"there is no {path}" if error.detail == HTTPStatus.NOT_FOUND.phrase else error.detail
    messages = {404: missing, 405: f"{path} allows {headers.get('Allow')} only"}
    return error_response(error.status_code, messages.get(error.status_code, error.detail), headers=headers)


# -- the calls --------------------------------------------------------------------------------------------------------


async def character_list(request: Request) -> Response:
    """List the characters."""
    known = await _known_characters(request)
    return _success([wire.character_data(character) for character in _characters(request, known)])


async def avatar_list(request: Request) -> Response:
    """List the avatars with their poses."""
    return _success([wire.avatar_data(avatar) for avatar in _avatars(request, await _known_characters(request))])


async def avatar_pose_list(request: Request) -> Response:
    """List the poses of one avatar."""
    avatar_id = _required_query(request, "avatar_id")
    spec = (await _known_characters(request)).specs.get(avatar_id)
    if spec is None:
        return error_response(404, f"there is no avatar {avatar_id!r}", code=wire.NOT_FOUND)
    return _success([wire.pose_data(pose) for pose in _poses(request, spec)])


async def video_generate(request: Request) -> Response:
    """Submit a video."""
    return await _submit(request, await _read_json(request, _read_checked_job))


async def _submit(request: Request, job: Job, *, only_uploads: bool = False) -> Response:
    engine = _engine(request)
    if only_uploads and not (job.audio_url or "").startswith(UPLOAD):
        raise HTTPException(400, "the page can only make videos of uploads")
    spec = _find_character(job, await engine.catalogue.current(), engine.settings)
    _check_options(job, engine)
    recording = _recording_name(engine, job.audio_url or "")
    if recording is None:
        return error_response(404, UPLOAD_GONE, code=wire.NOT_FOUND)
    try:
        task = engine.queue.submit(job, portable(spec), recording)
    except BusyError as error:
        return busy_response(str(error))
    status = {"status": task.status.value} if engine.settings.revision == "later" else {}
    return _success({"video_id": task.video_id} | status)


def _recording_name(engine: Engine, audio_url: str) -> str | None:
    """Return the name of a recording to display; ``None`` if it is an upload that does not exist."""
    if not audio_url.startswith(UPLOAD):
        return clean_name(unquote(urlsplit(audio_url).path).rstrip("/"))
    upload = engine.queue.uploads.find(audio_url.removeprefix(UPLOAD))
    return upload.name if upload else None


def _find_character(job: Job, known: Characters, settings: Settings) -> EngineCharacter:
    if job.pose_id and settings.revision == "seed":
        raise HTTPException(400, "model_id is missing: this revision of the API has no poses")
    pose = known.poses.get(job.pose_id) if job.pose_id else None
    spec = pose.character if pose else known.specs.get(job.model_id or "")
    if spec is None:
        raise HTTPException(400, _unknown_character_message(job, known))
    return spec


def _unknown_character_message(job: Job, known: Characters) -> str:
    what, name, value = ("pose", "pose_id", job.pose_id) if job.pose_id else ("character", "model_id", job.model_id)
    names = [Character(model_id=spec.model_id, display_name=spec.display_name) for spec in known.specs.values()]
    ids = {"model_id": list(known.specs), "pose_id": list(known.poses)}
    similar = Speakers(ids, Speakers.of(names).names).similar(name, str(value))
    advice = f"did you mean {similar!r}?" if similar else f"{name} must be one of: {', '.join(ids[name])}"
    return f"there is no {what} {value!r}; {advice}"


def _check_options(job: Job, engine: Engine) -> None:
    try:
        options = read_options(job.options, engine.settings, with_mask=job.with_mask)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    has_text = options.cues or options.transcript
    if options.captions and not has_text and engine.queue.speeches.words(job.audio_url or "") is None:
        if speech_id_of(job.audio_url or ""):
            raise HTTPException(404, "there is no such speech; speeches are deleted after a day")
        raise HTTPException(400, NO_WORDS)


def _read_checked_job(body: bytes) -> Job:
    job = wire.read_job(body)
    check_audio_url(job.audio_url or "")
    return job


async def _read_json(request: Request, read: Callable[[bytes], T]) -> T:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        hint = (
            "; with curl, add -H 'Content-Type: application/json'"
            if media_type == "application/x-www-form-urlencoded"
            else ""
        )
        raise HTTPException(415, f"the body must be JSON (Content-Type: application/json), not {media_type!r}{hint}")
    body = await _read_body(request)
    try:
        return read(body)
    except (ValueError, ProtocolError, AudioError) as error:
        raise HTTPException(400, str(error)) from None


async def _read_body(request: Request) -> bytes:
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the body must not be longer than {MAX_BODY // 1024} KiB")
    return body


def _required_query(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise HTTPException(400, f"{name} is missing from the query")
    return value


async def video_get(request: Request) -> Response:
    """Return the status of a video."""
    video_id = _required_query(request, "video_id")
    engine = _engine(request)
    task = engine.store.get(video_id)
    if task is None:
        keep_days = engine.settings.keep_days
        hint = "" if keep_days is None else f"; videos are deleted after {keep_days:g} days"
        return error_response(404, f"there is no video {video_id!r}{hint}", code=wire.NOT_FOUND)
    data = _video_data(request, task)
    if engine.settings.revision == "later":
        return _success(data)
    if task.status is VideoStatus.FAILED:
        # There is no status to report, and the client must not poll for ever.
        return JSONResponse(wire.refusal(RENDER_FAILED, task.message or "the render failed"))
    return _success({key: data[key] for key in ("video_id", "video_url", "captions_url") if key in data})


async def video_list(request: Request) -> Response:
    """List the videos, newest first."""
    shown: list[object] = []
    room = wire.MAX_BODY - 1024
    for task in _engine(request).store.newest(MAX_LISTED):
        data = _video_data(request, task)
        room -= len(json.dumps(data, ensure_ascii=False).encode()) + 1
        if room < 0:
            break
        shown.append(data)
    return _success(shown)


async def voice_list(request: Request) -> Response:
    """List the voices."""
    found = await _in_voice_thread(request, voices.all_voices)
    return _success([wire.voice_data(_with_sample(request, voice)) for voice in found.values()])


async def voice_generate(request: Request) -> Response:
    """Let a voice speak a text."""
    engine = _engine(request)
    text, voice_name = await _read_json(request, wire.read_speech)
    limit = engine.settings.text_limit
    if len(text) > limit:
        raise HTTPException(
            400, f"the text has {len(text)} characters, and {limit} are allowed: split it into several texts"
        )
    if engine.queue.resources.exhausted is not None:
        return busy_response(engine.queue.resources.exhausted)
    if engine.voice_limiter.statistics().tasks_waiting >= MAX_WAITING_TEXTS:
        return busy_response("too many texts are being synthesized")
    known = await _in_voice_thread(request, voices.all_voices)
    if voice_name not in known:
        message = f"there is no voice {voice_name!r}; voice_name must be one of: {', '.join(known)}"
        return error_response(404, message, code=wire.NOT_FOUND)

    def speak() -> tuple[str, Utterance]:
        utterance = voices.synthesize(text, voice_name, max_seconds=engine.settings.audio_limit)
        return engine.queue.speeches.add(utterance), utterance

    try:
        speech_id, utterance = await _in_voice_thread(request, speak)
    except SpeechError as error:
        raise HTTPException(400, str(error)) from None
    url = f"{_base_url(request)}speeches/{speech_id}.wav"
    return _success(wire.speech_data(Speech(url=url, text=text, voice_name=voice_name, words=tuple(utterance.words))))


async def _in_voice_thread(request: Request, work: Callable[[], T]) -> T:
    """Call a function of ``voices`` in a thread, one at a time: loading a voice takes seconds, and parallel calls would compete for the CPU.

    Raises:
        HTTPException: The extra ``voices`` is not installed.
    """
    try:
        return await anyio.to_thread.run_sync(work, limiter=_engine(request).voice_limiter)
    except ImportError as error:
        raise HTTPException(404, f"this engine has no voices: {error}") from None


def _with_sample(request: Request, voice: Voice) -> Voice:
    return evolve(voice, preview_url=f"{_base_url(request)}voices/{voice.voice_name}.wav")


def _success(data: object) -> Response:
    return JSONResponse(wire.success(data))


def _video_data(request: Request, task: Task) -> dict[str, str | None]:
    return wire.video_data(_video(request, task), task.message)


def _video(request: Request, task: Task) -> Video:
    finished = task.status is VideoStatus.FINISHED
    has_captions = finished and has_captions_file(task)
    return Video(
        video_id=task.video_id,
        status=task.status,
        video_url=f"{_base_url(request)}files/{task.video_id}.{container_of(task)}" if finished else None,
        mask_video_url=f"{_base_url(request)}masks/{task.video_id}.mp4" if finished and task.with_mask else None,
        captions_url=f"{_base_url(request)}files/{task.video_id}.{CAPTIONS}" if has_captions else None,
    )


async def _known_characters(request: Request) -> Characters:
    return await _engine(request).catalogue.current()


def _characters(request: Request, known: Characters) -> list[Character]:
    return [
        Character(
            model_id=model_id,
            name=spec.display_name,
            display_name=spec.display_name,
            gender=spec.gender,
            preview_url=_preview_url(request, model_id),
        )
        for model_id, spec in known.specs.items()
    ]


def _avatars(request: Request, known: Characters) -> list[Avatar]:
    return [
        Avatar(
            avatar_id=character.model_id,
            avatar_type="cg_human",
            name=character.name,
            display_name=character.display_name,
            gender=character.gender,
            preview_url=character.preview_url,
            poses=tuple(_poses(request, known.specs[character.model_id])),
        )
        for character in _characters(request, known)
    ]


def _poses(request: Request, spec: EngineCharacter) -> list[Pose]:
    return [
        Pose(pose_id=pose.pose_id, name=pose.name, preview_url=_preview_url(request, pose.pose_id))
        for pose in camera_poses(spec)
    ]


def _base_url(request: Request) -> str:
    """Return the engine's URL as the client sees it, with a slash at the end.

    ``request.base_url`` lacks the prefixes of ``Mount``.
    """
    prefix = quote(request.scope.get("root_path", "").rstrip("/"))
    return f"{request.url.scheme}://{request.headers['host']}{prefix}/"


def _preview_url(request: Request, subject_id: str) -> str:
    return f"{_base_url(request)}previews/{quote(subject_id)}.png"


# -- uploads ----------------------------------------------------------------------------------------------------------


async def upload_limits(request: Request) -> Response:
    """Return the limits of uploads. Clients conclude from the response that this server accepts uploads."""
    return _success(asdict(_engine(request).queue.uploads.limits))


async def upload(request: Request) -> Response:
    """Look up an upload (GET), or store it unless it exists (PUT). No route sends its content."""
    uploads, sha256 = _engine(request).queue.uploads, request.path_params["sha256"]
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise HTTPException(
            400, "the last part of the path must be the SHA-256 of the recording, 64 hexadecimal digits in lower case"
        )
    found = uploads.find(sha256, request.query_params.get("name", ""))
    if request.method == "PUT" and found is None:
        if reason := _engine(request).queue.resources.exhausted:
            return unavailable_response(reason)
        found = await receive_upload(request, sha256)
    if found is None:
        return error_response(404, "there is no such upload", code=wire.NOT_FOUND)
    return _upload_response(found)


def _upload_response(found: Upload) -> Response:
    return _success({"audio_url": f"{UPLOAD}{found.sha256}", "size": found.size, "expires": int(found.expires)})


async def receive_upload(request: Request, sha256: str | None) -> Upload:
    """Store the body of a request as an upload."""
    length = request.headers.get("content-length", "")
    if not re.fullmatch("[0-9]{1,15}", length):
        raise HTTPException(411, "an upload needs a Content-Length")
    extend_body_deadline(request.scope, MAX_SECONDS)
    name = request.query_params.get("name", "")
    try:
        return await _engine(request).queue.uploads.receive(sha256, name, int(length), request.stream())
    except UploadError as error:
        raise HTTPException(error.status, str(error)) from None


# -- other routes -----------------------------------------------------------------------------------------------------


async def video_file(request: Request) -> Response:
    """Send a finished video, or its captions. The URL alone grants access, like the presigned URLs of the hosted service."""
    video_id, _, extension = request.path_params["name"].rpartition(".")
    engine = _engine(request)
    task = engine.store.get(video_id)
    if task and extension == CAPTIONS:
        return await _send_file(task, engine.queue.captions_path(task.video_id))
    if task is None or extension != container_of(task):
        return _file_not_found()
    return await _send_file(task, engine.queue.path(task.video_id, container_of(task)))


async def mask_file(request: Request) -> Response:
    """Send the mask of a finished video."""
    engine = _engine(request)
    task = engine.store.get(request.path_params["video_id"])
    return await _send_file(task, engine.queue.mask_path(task.video_id)) if task else _file_not_found()


async def _send_file(task: Task, path: Path) -> Response:
    # Only the video_id of a stored task becomes part of a path.
    if task.status is not VideoStatus.FINISHED:
        return _file_not_found()
    try:
        file = await anyio.open_file(path, "rb")
    except FileNotFoundError:
        return _file_not_found()
    return VideoResponse(file, MEDIA_TYPES[path.suffix])


def _file_not_found() -> Response:
    return error_response(404, "there is no such file", code=wire.NOT_FOUND)


async def preview_file(request: Request) -> Response:
    """Send the picture of a character or of a pose."""
    pose = (await _known_characters(request)).find_pose(request.path_params["subject_id"])
    if pose is None:
        return _file_not_found()
    picture = await anyio.to_thread.run_sync(_preview_png, pose, limiter=_engine(request).preview_limiter)
    # The picture of a character in the folder changes with its file.
    caching = "max-age=3600" if is_built_in(pose.character) else "no-cache"
    return Response(picture, media_type="image/png", headers={"Cache-Control": caching})


async def speech_file(request: Request) -> Response:
    """Send a speech. The URL alone grants access, as for videos."""
    speech_id = request.path_params["speech_id"]
    missing = error_response(404, "there is no such file; speeches are deleted after a day", code=wire.NOT_FOUND)
    if not re.fullmatch("[0-9a-f]{32}", speech_id):
        return missing
    try:
        file = await anyio.open_file(_engine(request).queue.speeches.path(speech_id), "rb")
    except FileNotFoundError:
        return missing
    return VideoResponse(file, "audio/wav")


async def voice_sample(request: Request) -> Response:
    """Send a sample of a voice."""
    voice_name = request.path_params["voice_name"]
    if voice_name not in await _in_voice_thread(request, voices.all_voices):
        return error_response(404, "there is no such file", code=wire.NOT_FOUND)
    sample = await _in_voice_thread(request, partial(_sample_wav, voice_name))
    return Response(sample, media_type="audio/wav", headers={"Cache-Control": "max-age=3600"})


@cache
def _sample_wav(voice_name: str) -> bytes:
    text = f"Hello! My name is {voice_name.capitalize()}, and I can speak your text."
    file = io.BytesIO()
    write_wav(file, voices.synthesize(text, voice_name))
    return file.getvalue()


def _preview_png(pose: CameraPose) -> bytes:
    # Imported late: it loads the drawing packages, which the server needs for previews only.
    from a2v.engine.preview import preview  # noqa: PLC0415

    return preview(pose.pose_id, PREVIEW_SIZE, pose.character)


async def health(request: Request) -> Response:
    """Report whether the engine works: 503 while the machine has run out of a resource."""
    engine = _engine(request)
    engine.store.pending_count()  # fails if the database does
    reason = engine.queue.resources.exhausted
    return _success({"status": "ok"}) if reason is None else unavailable_response(reason)


async def metrics(request: Request) -> Response:
    """Send the metrics in the text format of Prometheus."""
    engine = _engine(request)
    queue = engine.queue
    exhausted = queue.resources.exhausted is not None
    text = queue.metrics.text(engine.store, queue.uploads, queue.folder, exhausted=exhausted)
    return Response(text, media_type=MEDIA_TYPE)


async def openapi(request: Request) -> Response:
    """Send the OpenAPI description."""
    known = await _known_characters(request)
    return JSONResponse(openapi_document(_engine(request).settings, known, _base_url(request).rstrip("/")))


# -- the page ---------------------------------------------------------------------------------------------------------


async def front_page(request: Request) -> Response:
    """Send the page."""
    avatars, videos = await _page_content(request)
    return HTMLResponse(page_html(avatars, videos, MAX_BYTES), headers=PAGE_HEADERS)


async def page_videos(request: Request) -> Response:
    """Send the list of videos once it differs from the client's version (GET, long polling), or submit a video of an upload (POST)."""
    if request.method == "POST":
        return await _submit(request, await _read_json(request, _read_checked_job), only_uploads=True)
    engine, version = _engine(request), request.query_params.get("version")
    changes, state = engine.store.changes, page_state(*await _page_content(request))
    with anyio.move_on_after(PAGE_WAIT_SECONDS):
        while state["version"] == version and not engine.stopping.is_set():
            await anyio.sleep(PAGE_INTERVAL)
            if engine.store.changes != changes:
                changes, state = engine.store.changes, page_state(*await _page_content(request))
    return _success(state)


async def page_upload(request: Request) -> Response:
    """Store an upload of the page, which cannot send the hash: browsers compute one only in pages with TLS."""
    if reason := _engine(request).queue.resources.exhausted:
        return unavailable_response(reason)
    return _upload_response(await receive_upload(request, None))


async def _page_content(request: Request) -> tuple[list[Avatar], list[PageVideo]]:
    engine = _engine(request)
    positions = {video_id: place for place, video_id in enumerate(engine.store.pending(), start=1)}
    videos = [
        PageVideo(task, _video(request, task), positions.get(task.video_id))
        for task in engine.store.newest(VIDEOS_ON_PAGE)
    ]
    avatars = _avatars(request, await _known_characters(request))
    if engine.settings.revision == "seed":
        avatars = [evolve(avatar, poses=()) for avatar in avatars]
    return avatars, videos
