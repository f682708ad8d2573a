"""The wire format: builds requests, and converts responses to values and back.

All knowledge of the protocol's JSON is here. The client parses responses with it; the local engine and the test kit write them.

Parsing is strict about types and lenient about additions: unknown fields are ignored and unknown statuses become ``UNKNOWN``,
but a field of the wrong type is a ``ProtocolError``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast

from attrs import field, frozen

from a2v._values.jobs import Job, check_text, check_voice_name
from a2v._values.models import Avatar, Character, Pose, ResultList, Speech, Video, VideoStatus, Voice, Word
from a2v._values.text import escape, redacted_repr
from a2v.errors import InvalidArgumentError, ProtocolError

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

CHARACTER_LIST = "/v1/a2v/character.list"
VIDEO_GENERATE = "/v1/a2v/video.generate"
VIDEO_GET = "/v1/a2v/video.get"
VIDEO_LIST = "/v1/a2v/video.list"
AVATAR_LIST = "/v1/a2v/avatar.list"
AVATAR_POSE_LIST = "/v1/a2v/avatar-pose.list"
VOICE_LIST = "/v1/tts/voice.list"
VOICE_GENERATE = "/v1/tts/voice.generate"
UPLOADS = "/v1/a2v/uploads"
"""An addition of the local engine, which hosted services do not have."""
UPLOAD = "upload://"
"""How the ``audio_url`` of an upload begins."""

OK = 0
TOO_MANY_REQUESTS = 1009
NOT_FOUND = 10001

MAX_BODY = 1024 * 1024
"""The longest response about a single resource, in bytes."""

MAX_LIST = 32 * 1024 * 1024
"""The longest response that is a list, in bytes: enough for 30,000 videos with signed URLs of 800 characters."""

REQUEST_ID_HEADERS = (
    "x-request-id", "request-id", "x-amzn-requestid", "x-amz-request-id", "x-correlation-id", "x-trace-id", "cf-ray",
)  # fmt: skip
"""Headers in which servers and gateways send the id of a request; the first one that is present counts."""

MAX_TEXT = 500
"""The longest text that the hosted service speaks, in characters. Other servers may accept longer ones."""

_MAX_DEPTH = 50


@frozen
class ApiRequest(Generic[T]):
    """A request of the API.

    Attributes:
        method: ``GET`` and ``PUT`` can be repeated freely; ``POST`` costs money each time it arrives.
        path: The path below ``base_url``.
        read: Converts the ``data`` of a successful response to the result, or raises ``ProtocolError``.
        params: The query.
        json: The body to send.
        job: The job, if this is ``video.generate``, or the ``voice.generate`` of a job with a text.
        max_body: The longest response to read, in bytes.
    """

    method: Literal["GET", "POST", "PUT"]
    path: str
    read: Callable[[object], T]
    params: Mapping[str, str] | None = None
    # Not in error reports: it may contain a signed URL.
    json: Mapping[str, str | bool] | None = field(default=None, repr=False)
    job: Job | None = None
    max_body: int = MAX_BODY

    @property
    def name(self) -> str:
        """The protocol's name of the method, such as ``video.get``."""
        if self.path.startswith(UPLOADS):
            return "uploads"
        return self.path.rpartition("/")[2]

    @property
    def about(self) -> str | None:
        """The field that names the resource, such as ``video_id``; ``None`` if the request is about all of them."""
        names = ("pose_id", "model_id", "voice_name")
        sent = self.params or {name: "" for name in names if name in (self.json or {})}
        return next(iter(sent), None)

    @property
    def costs(self) -> bool:
        """Whether it costs money each time it arrives, so that it must not be repeated if it may have arrived."""
        return self.method == "POST"


@frozen(kw_only=True)
class UploadLimits:
    """What a server accepts as uploads.

    Attributes:
        max_bytes: The largest recording.
        max_seconds: The longest time that an upload may take.
        keep_seconds: How long an upload is kept after its last use.
    """

    max_bytes: int
    max_seconds: float
    keep_seconds: float


@frozen
class Response:
    """A response: header names in lower case, and the complete body."""

    status_code: int
    # Kept out of error reports: servers echo tokens in headers and put signed URLs into bodies.
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, which its operators can search for; ``None`` if it sent none."""
        return next((escape(self.headers[name]) for name in REQUEST_ID_HEADERS if self.headers.get(name)), None)


class Envelope(NamedTuple):
    """The JSON object that wraps every response."""

    code: int
    message: str
    data: object


# -- requests ---------------------------------------------------------------------------------------------------------


def character_list() -> ApiRequest[list[Character]]:
    """List all characters."""
    return ApiRequest("GET", CHARACTER_LIST, lambda data: _read_list(data, Character), max_body=MAX_LIST)


def video_generate(job: Job, speech_url: str | None = None) -> ApiRequest[str]:
    """Submit a job; the result is the video's id.

    Args:
        job: The job.
        speech_url: The recording of its text, if it has one.
    """
    return ApiRequest("POST", VIDEO_GENERATE, _read_video_id, json=job_data(job, speech_url), job=job)


def video_get(video_id: str) -> ApiRequest[Video]:
    """Get a video."""

    def read(data: object) -> Video:
        video = _structure(data, Video)
        if video.video_id != video_id:
            raise ProtocolError(f"asked for video {video_id!r}, got {video.video_id!r}")
        return video

    return ApiRequest("GET", VIDEO_GET, read, params={"video_id": video_id})


def video_list() -> ApiRequest[list[Video]]:
    """List all videos of the account."""
    return ApiRequest("GET", VIDEO_LIST, lambda data: _read_list(data, Video), max_body=MAX_LIST)


def avatar_list() -> ApiRequest[list[Avatar]]:
    """List all avatars with their poses."""
    return ApiRequest("GET", AVATAR_LIST, lambda data: _read_list(data, Avatar), max_body=MAX_LIST)


def avatar_pose_list(avatar_id: str) -> ApiRequest[list[Pose]]:
    """List the poses of an avatar."""
    return ApiRequest(
        "GET",
        AVATAR_POSE_LIST,
        lambda data: _without_duplicates(_read_list(data, Pose)),
        params={"avatar_id": avatar_id},
        max_body=MAX_LIST,
    )


def voice_list() -> ApiRequest[list[Voice]]:
    """List all voices."""
    return ApiRequest("GET", VOICE_LIST, lambda data: _read_list(data, Voice), max_body=MAX_LIST)


def voice_generate(text: str, voice_name: str, job: Job | None = None) -> ApiRequest[Speech]:
    """Let a voice speak a text; the result is the recording.

    Args:
        text: The text.
        voice_name: The voice.
        job: The job that it is for, if any.
    """

    def read(data: object) -> Speech:
        sent = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        return _structure(sent | {"text": text, "voice_name": voice_name}, Speech, sent)

    sent = {"text": text, "voice_name": voice_name}
    return ApiRequest("POST", VOICE_GENERATE, read, json=sent, job=job)


def job_speech(job: Job) -> ApiRequest[Speech]:
    """Let the voice of a job speak its text."""
    return voice_generate(job.text or "", job.voice_name or "", job)


def upload_limits() -> ApiRequest[UploadLimits]:
    """Ask whether the server accepts uploads. Only a2v's engine does."""
    return ApiRequest("GET", UPLOADS, lambda data: _structure(data, UploadLimits))


def upload_get(sha256: str, name: str) -> ApiRequest[None]:
    """Ask for an upload, which the server then keeps for longer, under this name."""
    return ApiRequest("GET", f"{UPLOADS}/{sha256}", lambda _: None, params={"name": name})


def upload_put(sha256: str, name: str) -> ApiRequest[None]:
    """Upload a recording, whose content is the body of the request."""
    return ApiRequest("PUT", f"{UPLOADS}/{sha256}", lambda _: None, params={"name": name})


# -- parsing ----------------------------------------------------------------------------------------------------------


def read_json(body: bytes) -> object:
    """Parse strict JSON: UTF-8, without NaN, duplicate keys or deep nesting.

    Raises:
        ProtocolError: The body is not strict JSON.
    """
    try:
        return _parse(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
    raise ProtocolError(f"the response is not the expected JSON: {reason}")


def _read_request(body: bytes) -> dict[str, Any]:
    """Parse the body of a request. The messages are for clients in any language, so they quote none of Python's.

    Raises:
        ProtocolError: The body is not a JSON object.
    """
    try:
        value = _parse(body)
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 text (byte {error.start + 1})"
    except json.JSONDecodeError as error:
        reason = f"the mistake is in line {error.lineno}, column {error.colno}" if body.strip() else "it is empty"
    except RecursionError:
        reason = "it is nested too deep"
    except _UnacceptableError as error:
        reason = str(error)
    except ValueError:
        reason = "a number has too many digits"
    else:
        if isinstance(value, dict):
            return cast("dict[str, Any]", value)
        reason = "it is another kind of value"
    raise ProtocolError(f"the body must be a JSON object: {reason}")


def _parse(body: bytes) -> object:
    value = _DECODER.decode(body.decode())
    _refuse_depth(value)
    return value


class _UnacceptableError(ValueError):
    """Python accepts this as JSON, and other parsers do not, or read something else."""


def _refuse_constant(name: str) -> None:
    raise _UnacceptableError(f"{name} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _UnacceptableError("a key occurs twice")
    return value


# json.loads would make a decoder for each response.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)


def _refuse_depth(value: object) -> None:
    """Refuse values that are nested too deeply to be pickled, copied or shown."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MAX_DEPTH - 1):
        if not level:
            return
        level = [child for each in level for child in _children(each) if isinstance(child, dict | list)]
    raise RecursionError


def _children(value: object) -> Iterable[object]:
    return cast("dict[str, object]", value).values() if isinstance(value, dict) else cast("list[object]", value)


def read_envelope(body: bytes) -> Envelope:
    """Parse the envelope of a response.

    Raises:
        ProtocolError: The body is not an envelope.
    """
    value = read_json(body)
    if not isinstance(value, dict):
        raise ProtocolError("the response is not a JSON object")
    envelope = cast("dict[str, object]", value)
    message = envelope.get("message")
    # Escaped because it is logged and printed: it could forge log lines, or contain lone surrogates, which cannot be encoded.
    shown = escape(message.encode(errors="replace").decode()) if isinstance(message, str) else ""
    return Envelope(_read_code(envelope.get("code")), shown, envelope.get("data"))


def _read_code(code: object) -> int:
    """Return an integer or a string of decimal digits as integer. ``False`` and ``0.0`` equal 0, but do not mean success."""
    if type(code) is int:
        return code
    if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) < 10:
        return int(code)
    raise ProtocolError(f"the response's code is {code!r}, not an integer")


def _read_list(data: object, kind: type[T]) -> list[T]:
    if not isinstance(data, list):
        raise ProtocolError(f"expected a list, got {type(data).__name__}")
    return ResultList(_structure(item, kind) for item in cast("list[object]", data))


def _read_video_id(data: object) -> str:
    video_id = cast("dict[str, object]", data).get("video_id") if isinstance(data, dict) else None
    if not isinstance(video_id, str) or not video_id.strip():
        raise ProtocolError("the response has no video_id")
    try:
        return _string(video_id, str)
    except TypeError as error:
        reason = str(error)
    raise ProtocolError(f"the response's video_id is invalid: {reason}")


def _structure(data: object, kind: type[T], raw: Mapping[str, Any] | None = None) -> T:
    if not isinstance(data, dict):
        raise ProtocolError(f"expected an object, got {type(data).__name__}")
    from cattrs import BaseValidationError, transform_error  # noqa: PLC0415  # only to read responses

    sent = cast("dict[str, Any]", data)
    present = {key: value for key, value in sent.items() if value is not None}
    try:
        return _converter().structure(present | {"raw": sent if raw is None else raw}, kind)
    except BaseValidationError as error:
        reason = "; ".join(transform_error(error, path=kind.__name__))
    raise ProtocolError(f"the response does not follow the protocol: {reason}")


@cache
def _converter() -> Converter:
    """Return a converter that ignores unknown fields and refuses wrong types. cattrs alone would convert any value to a string."""
    from cattrs import Converter  # noqa: PLC0415  # only to read responses
    from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415

    converter = Converter()
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(VideoStatus, lambda sent, _: _status(_string(sent, str)))
    plain = make_dict_structure_fn(Video, converter)
    converter.register_structure_hook(Video, lambda sent, _: plain(_with_status(sent), Video))
    poses = override(struct_hook=lambda sent, _: tuple(_without_duplicates(_read_list(sent, Pose))))
    avatar = make_dict_structure_fn(Avatar, converter, avatar_id=override(rename="id"), poses=poses)
    converter.register_structure_hook(Avatar, avatar)
    tags = override(struct_hook=lambda sent, _: _tags(sent))
    converter.register_structure_hook(Voice, make_dict_structure_fn(Voice, converter, tags=tags))
    url = override(struct_hook=lambda sent, _: _speech_url(sent))
    words = override(struct_hook=lambda sent, _: _words(sent))
    converter.register_structure_hook(Speech, make_dict_structure_fn(Speech, converter, url=url, words=words))
    return converter


def _without_duplicates(poses: list[Pose]) -> list[Pose]:
    """Remove duplicates: the hosted service sometimes lists a pose twice."""
    first: dict[str, Pose] = {}
    for pose in poses:
        first.setdefault(pose.pose_id, pose)
    return ResultList(first.values())


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    if not _is_text(value):
        raise TypeError(f"{value!r} is not text")
    return value


def _is_text(value: str) -> bool:
    """Whether a string can be encoded: JSON may contain lone surrogates, which files and terminals do not accept."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tags(sent: object) -> tuple[str, ...]:
    """Return tags: the protocol does not say whether they are a list or a string."""
    tags = cast("list[object]", sent) if isinstance(sent, list) else [sent]
    return tuple(text for tag in tags if (text := _string(tag, str).strip()))


def _speech_url(sent: object) -> str:
    """Return the URL of a speech, which must be usable as an ``audio_url``."""
    try:
        url = Job("m", _string(sent, str)).audio_url or ""
    except InvalidArgumentError as error:
        raise ValueError(str(error)) from None
    if not url.lower().startswith("http"):
        raise ValueError(f"the recording must have an http(s):// URL, got {redacted_repr(url)}")
    return url


def _words(sent: object) -> tuple[Word, ...]:
    """Return the words of a speech; none if they do not look like those of the local engine: the speech may be paid for."""
    try:
        words = [Word.from_dict(word) for word in cast("list[Any]", sent)]
    except (TypeError, ValueError):
        return ()
    times = [time for word in words for time in (word.start, word.end)]
    return tuple(words) if all(map(isfinite, times)) and times == sorted(times) else ()


def _status(word: str) -> VideoStatus:
    try:
        return VideoStatus(word)
    except ValueError:
        return VideoStatus.UNKNOWN


def _with_status(sent: dict[str, Any]) -> dict[str, Any]:
    """Add the status, which the first revision of the API does not have: a URL means finished, none means in progress."""
    urls = {key: sent.get(key) or None for key in ("video_url", "mask_video_url", "captions_url")}
    implied = VideoStatus.FINISHED if urls["video_url"] else VideoStatus.IN_PROGRESS
    return {"status": implied.value} | sent | urls


# -- writing, for servers ---------------------------------------------------------------------------------------------


def success(data: object) -> dict[str, object]:
    """Return the envelope of a successful response."""
    return {"code": OK, "data": data, "message": "success"}


def refusal(code: int, message: str) -> dict[str, object]:
    """Return the envelope of a refusal."""
    return {"code": code, "data": None, "message": message}


def character_data(character: Character) -> dict[str, str]:
    """Return a character as in ``character.list``."""
    keys = ("model_id", "name", "display_name", "gender", "preview_url")
    return {key: getattr(character, key) for key in keys}


def video_data(video: Video, message: str | None = None) -> dict[str, str | None]:
    """Return a video as in ``video.get``: the fields of the first revision, the status, and the server's message."""
    data: dict[str, str | None] = {
        "video_id": video.video_id,
        "status": video.status.value,
        "video_url": video.video_url,
    }
    more = {"mask_video_url": video.mask_video_url, "captions_url": video.captions_url, "message": message}
    return data | {key: value for key, value in more.items() if value}


def avatar_data(avatar: Avatar) -> dict[str, object]:
    """Return an avatar as in ``avatar.list``."""
    keys = ("avatar_type", "name", "gender", "display_name", "preview_url")
    poses = [pose_data(pose) for pose in avatar.poses]
    return {"id": avatar.avatar_id, **{key: getattr(avatar, key) for key in keys}, "poses": poses}


def pose_data(pose: Pose) -> dict[str, str]:
    """Return a pose as in ``avatar.list`` and ``avatar-pose.list``."""
    return {"pose_id": pose.pose_id, "name": pose.name, "preview_url": pose.preview_url}


def voice_data(voice: Voice) -> dict[str, object]:
    """Return a voice as in ``voice.list``."""
    keys = ("voice_name", "gender", "language", "locale", "preview_url")
    return {**{key: getattr(voice, key) for key in keys}, "tags": list(voice.tags)}


def speech_data(speech: Speech) -> dict[str, object]:
    """Return a speech as in ``voice.generate``, with its words if they are known."""
    data: dict[str, object] = {"url": speech.url}
    if speech.words:
        data["words"] = [
            {"text": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in speech.words
        ]
    return data


# -- jobs ------------------------------------------------------------------------------------------------------------


def job_data(job: Job, speech_url: str | None = None) -> dict[str, Any]:
    """Return a job as in ``video.generate``: the fields of the first revision, and later ones only if they are used.

    Args:
        job: The job.
        speech_url: The recording of its text. Without one, a job with a text is described by its text and its voice.
    """
    subject = {"pose_id": job.pose_id} if job.pose_id else {"model_id": job.model_id}
    audio_url = job.audio_url or speech_url
    speech = {"audio_url": audio_url} if audio_url else {"text": job.text, "voice_name": job.voice_name}
    mask = {"with_mask": True} if job.with_mask else {}
    return {key: value for key, value in (subject | speech).items() if value} | mask | dict(job.options)


def read_job(body: bytes) -> Job:
    """Parse the body of ``video.generate``. Fields that are not of the protocol are the job's ``options``.

    Raises:
        ValueError: A field is invalid.
        ProtocolError: The body is not a JSON object.
    """
    keys = ("model_id", "pose_id", "audio_url", "with_mask")
    fields = _read_request(body)
    sent: dict[str, Any] = {key: fields.get(key) for key in keys}
    # Only null means "not given"; other values are left for `Job` to check.
    if sent["model_id"] is None and sent["pose_id"] is None:
        raise InvalidArgumentError("model_id is missing: the id of a character such as 'eva_a0008'")
    if sent["audio_url"] is None:
        raise InvalidArgumentError("audio_url is missing: the URL of a speech recording")
    if sent["with_mask"] is None:
        sent["with_mask"] = False
    if not isinstance(sent["with_mask"], bool):
        raise InvalidArgumentError("with_mask must be true or false")
    known = {*keys, "text", "voice_name"}
    options = {key: option for key, option in fields.items() if key not in known and option is not None}
    return Job(**sent, options=options)


def read_speech(body: bytes) -> tuple[str, str]:
    """Parse the body of ``voice.generate``.

    Returns:
        The text, and the name of the voice.

    Raises:
        ValueError: A field is invalid.
        ProtocolError: The body is not a JSON object.
    """
    sent = _read_request(body)
    text, voice_name = sent.get("text"), sent.get("voice_name")
    if text is None:
        raise InvalidArgumentError("text is missing: the text to be spoken")
    if voice_name is None:
        raise InvalidArgumentError("voice_name is missing: the name of a voice from voice.list")
    check_speech(text, voice_name)
    return cast("tuple[str, str]", (text, voice_name))


def check_speech(text: Any, voice_name: Any) -> None:
    """Check the arguments of ``voice.generate``.

    Raises:
        InvalidArgumentError: One is invalid.
    """
    check_text(text)
    check_voice_name(voice_name)
