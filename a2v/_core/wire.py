"""The JSON on the wire, for both sides: a call becomes a request, a reply becomes a value or an error.

This is the one place that knows how the protocol looks. The client reads replies with it, the local engine writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Generic, Literal, TypeVar, cast

import cattrs
from attrs import field, frozen
from cattrs.gen import make_dict_structure_fn, override

from a2v._values.jobs import Job
from a2v._values.models import Avatar, Character, Pose, ResultList, Video, VideoStatus
from a2v._values.text import escape
from a2v.errors import ProtocolError

T = TypeVar("T")

CHARACTER_LIST = "/v1/a2v/character.list"
VIDEO_GENERATE = "/v1/a2v/video.generate"
VIDEO_GET = "/v1/a2v/video.get"
VIDEO_LIST = "/v1/a2v/video.list"
AVATAR_LIST = "/v1/a2v/avatar.list"
AVATAR_POSE_LIST = "/v1/a2v/avatar-pose.list"

OK = 0
TOO_MANY_REQUESTS = 1009
NOT_FOUND = 10001

MAX_BODY = 1024 * 1024
"""Longest response about one thing, in bytes."""

MAX_LIST = 32 * 1024 * 1024
"""Longest response of a call that lists things, in bytes: 30,000 videos with signed URLs of 800 characters."""

_DEEPEST = 50


@frozen
class ApiRequest(Generic[T]):
    """A request of the API.

    Attributes:
        method: ``GET`` can be repeated freely; ``POST`` costs money each time it arrives.
        path: The path below ``base_url``.
        read: Converts the ``data`` of a successful response to the result, or raises ``ProtocolError``.
        params: The query.
        job: The job, if this is ``video.generate``.
        max_body: The longest response to read, in bytes.
    """

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[object], T]
    params: Mapping[str, str] | None = None
    job: Job | None = None
    max_body: int = MAX_BODY

    @property
    def name(self) -> str:
        """The protocol's name of the method, such as ``video.get``."""
        return self.path.rpartition("/")[2]

    @property
    def about(self) -> str | None:
        """The field that names the resource, such as ``video_id``; ``None`` if the request is about all of them."""
        if self.job:
            return "pose_id" if self.job.pose_id else "model_id"
        return next(iter(self.params), None) if self.params else None

    @property
    def json(self) -> dict[str, str | bool] | None:
        """The body to send."""
        return job_data(self.job) if self.job else None


@frozen
class Response:
    """A response: header names in lower case, and the complete body."""

    status_code: int
    # Kept out of error reports: servers echo tokens in headers and put signed URLs into bodies.
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@frozen
class Envelope:
    """The JSON object that wraps every response."""

    code: int
    message: str
    data: object


# -- calls ------------------------------------------------------------------------------------------------------------


def character_list() -> ApiRequest[list[Character]]:
    """All characters of the service."""
    return ApiRequest("GET", CHARACTER_LIST, lambda data: _read_list(data, Character), max_body=MAX_LIST)


def video_generate(job: Job) -> ApiRequest[str]:
    """Submit a job; the value is the new video's id."""
    return ApiRequest("POST", VIDEO_GENERATE, _read_video_id, job=job)


def video_get(video_id: str) -> ApiRequest[Video]:
    """Look at one video."""

    def read(data: object) -> Video:
        video = _structure(data, Video)
        if video.video_id != video_id:
            raise ProtocolError(f"asked for video {video_id!r}, was told about {video.video_id!r}")
        return video

    return ApiRequest("GET", VIDEO_GET, read, params={"video_id": video_id})


def video_list() -> ApiRequest[list[Video]]:
    """Look at every video of the account."""
    return ApiRequest("GET", VIDEO_LIST, lambda data: _read_list(data, Video), max_body=MAX_LIST)


def avatar_list() -> ApiRequest[list[Avatar]]:
    """All avatars of the service, with their poses."""
    return ApiRequest("GET", AVATAR_LIST, lambda data: _read_list(data, Avatar), max_body=MAX_LIST)


def avatar_pose_list(avatar_id: str) -> ApiRequest[list[Pose]]:
    """The poses of one avatar, each once."""
    return ApiRequest(
        "GET",
        AVATAR_POSE_LIST,
        lambda data: _once(_read_list(data, Pose)),
        params={"avatar_id": avatar_id},
        max_body=MAX_LIST,
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def read_json(body: bytes) -> object:
    """Strict JSON: UTF-8, no NaN, no key twice.

    Raises:
        ProtocolError: The body is something else.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
        _refuse_depth(value)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
    else:
        return value
    raise ProtocolError(f"not the JSON that the protocol promises: {reason}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _refuse_depth(value: object) -> None:
    """What is nested deeper than this cannot be pickled, copied or shown by those who get it."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [each for part in level for each in _within(part)]
        if not level:
            return
    raise RecursionError


def _within(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def read_envelope(body: bytes) -> Envelope:
    """Open a reply's envelope.

    Raises:
        ProtocolError: There is none.
    """
    value = read_json(body)
    if not isinstance(value, dict):
        raise ProtocolError("the reply is not a JSON object")
    envelope = cast("dict[str, object]", value)
    message = envelope.get("message")
    # It is shown and logged: a server must not forge lines of a log, and half a character cannot be encoded.
    shown = escape(message.encode(errors="replace").decode()) if isinstance(message, str) else ""
    return Envelope(_read_code(envelope.get("code")), shown, envelope.get("data"))


def _read_code(code: object) -> int:
    """An integer, or a string of decimal digits; ``False == 0`` and ``0.0 == 0`` must not pass for success."""
    if type(code) is int:
        return code
    if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) < 10:
        return int(code)
    raise ProtocolError(f"the reply's code is {code!r}, not an integer")


def _read_list(data: object, kind: type[T]) -> list[T]:
    if not isinstance(data, list):
        raise ProtocolError(f"expected a list, got {type(data).__name__}")
    return ResultList(_structure(item, kind) for item in cast("list[object]", data))


def _read_video_id(data: object) -> str:
    video_id = cast("dict[str, object]", data).get("video_id") if isinstance(data, dict) else None
    if not isinstance(video_id, str) or not video_id.strip():
        raise ProtocolError("the reply has no video_id")
    try:
        return _string(video_id, str)
    except TypeError as error:
        reason = str(error)
    raise ProtocolError(f"the reply's video_id cannot be one: {reason}")


def _structure(data: object, kind: type[T]) -> T:
    if not isinstance(data, dict):
        raise ProtocolError(f"expected an object, got {type(data).__name__}")
    sent = cast("dict[str, Any]", data)
    present = {key: value for key, value in sent.items() if value is not None}
    try:
        return _converter().structure(present | {"raw": sent}, kind)
    except cattrs.BaseValidationError as error:
        reason = "; ".join(cattrs.transform_error(error, path=kind.__name__))
    raise ProtocolError(f"the reply is not what the protocol promises: {reason}")


@cache
def _converter() -> cattrs.Converter:
    """Forgives what is added, refuses what is of another type (cattrs alone would make a string of anything)."""
    converter = cattrs.Converter()
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(VideoStatus, lambda sent, _: _status(_string(sent, str)))
    plain = make_dict_structure_fn(Video, converter)
    converter.register_structure_hook(Video, lambda sent, _: plain(_with_status(sent), Video))
    poses = override(struct_hook=lambda sent, _: tuple(_once(_read_list(sent, Pose))))
    avatar = make_dict_structure_fn(Avatar, converter, avatar_id=override(rename="id"), poses=poses)
    converter.register_structure_hook(Avatar, avatar)
    return converter


def _once(poses: list[Pose]) -> list[Pose]:
    """The service has been seen to name a pose twice."""
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
    """Whether it can be encoded: JSON can hold halves of characters, which no file and no terminal takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _status(word: str) -> VideoStatus:
    try:
        return VideoStatus(word)
    except ValueError:
        return VideoStatus.UNKNOWN


def _with_status(sent: dict[str, Any]) -> dict[str, Any]:
    """The seed's form has no status: there a URL means finished and its absence means still under way."""
    urls = {key: sent.get(key) or None for key in ("video_url", "mask_video_url")}
    implied = VideoStatus.FINISHED if urls["video_url"] else VideoStatus.IN_PROGRESS
    return {"status": implied.value} | sent | urls


# -- writing, for servers ---------------------------------------------------------------------------------------------


def success(data: object) -> dict[str, object]:
    """The envelope of a good reply."""
    return {"code": OK, "data": data, "message": "success"}


def refusal(code: int, message: str) -> dict[str, object]:
    """The envelope of a bad one."""
    return {"code": code, "data": None, "message": message}


def character_data(character: Character) -> dict[str, str]:
    """A character as ``character.list`` shows it."""
    keys = ("model_id", "name", "display_name", "gender", "preview_url")
    return {key: getattr(character, key) for key in keys}


def video_data(video: Video, message: str | None = None) -> dict[str, str | None]:
    """A video as ``video.get`` shows it: the seed's two fields, the status of later revisions, why it failed if it did."""
    data: dict[str, str | None] = {
        "video_id": video.video_id,
        "status": video.status.value,
        "video_url": video.video_url,
    }
    more = {"mask_video_url": video.mask_video_url, "message": message}
    return data | {key: value for key, value in more.items() if value}


def avatar_data(avatar: Avatar) -> dict[str, object]:
    """An avatar as ``avatar.list`` shows it."""
    keys = ("avatar_type", "name", "gender", "display_name", "preview_url")
    poses = [pose_data(pose) for pose in avatar.poses]
    return {"id": avatar.avatar_id, **{key: getattr(avatar, key) for key in keys}, "poses": poses}


def pose_data(pose: Pose) -> dict[str, str]:
    """A pose as ``avatar.list`` and ``avatar-pose.list`` show it."""
    return {"pose_id": pose.pose_id, "name": pose.name, "preview_url": pose.preview_url}


# -- a job, which one side writes and the other reads -----------------------------------------------------------------


def job_data(job: Job) -> dict[str, str | bool]:
    """A job as ``video.generate`` takes it: the seed's two fields, those of later revisions where they are used."""
    who = {"pose_id": job.pose_id} if job.pose_id else {"model_id": job.model_id}
    mask = {"with_mask": True} if job.with_mask else {}
    return {key: value for key, value in who.items() if value} | {"audio_url": job.audio_url} | mask


def read_job(body: bytes) -> Job:
    """What a client submits with ``video.generate``.

    Raises:
        ValueError: It cannot be right; the message says why.
        ProtocolError: It is not a JSON object.
    """
    value = read_json(body)
    if not isinstance(value, dict):
        raise ProtocolError("the body must be a JSON object")
    keys = ("model_id", "pose_id", "audio_url", "with_mask")
    sent: dict[str, Any] = {key: cast("dict[str, Any]", value).get(key) for key in keys}
    # Optional fields may be null, and nothing but null stands for "not given".
    if sent["with_mask"] is None:
        sent["with_mask"] = False
    return Job(**sent)
