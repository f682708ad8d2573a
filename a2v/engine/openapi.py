"""The OpenAPI 3.1 description of the engine's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from a2v._core import wire
from a2v._core.captions import MAX_CHARACTERS, Cue, to_srt
from a2v._values.models import VideoStatus
from a2v._version import __version__
from a2v.engine import voices
from a2v.engine.face_pose import Mood
from a2v.engine.recording_fetcher import HTTP_URL, UPLOAD_URL
from a2v.engine.settings import FRAME_RATES, SIZES, Format
from a2v.engine.video_options import (
    COLOUR,
    MAX_ANIMATION_SECONDS,
    MAX_GIF_FPS,
    OWN,
    TRANSPARENT,
    WITH_ALPHA,
    WITH_MASK,
    WITH_TRACK,
    CaptionWay,
    Container,
)

if TYPE_CHECKING:
    from a2v.engine.characters.catalogue import Characters
    from a2v.engine.settings import Settings

Json = dict[str, Any]

_NUMBER = {"type": "integer"}
_TEXT = {"type": "string"}
_ID = {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "128 random bits."}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "The SHA-256 of the content, in lower case."}
_URL = {"type": "string", "format": "uri"}
_CAPTIONS_URL = {**_URL, "description": "The captions in the format WebVTT, if `captions` has `files`."}
_HEADERS = {
    "X-Ratelimit-Total": "Requests allowed per minute. Sent if there is a limit.",
    "X-Ratelimit-Left": "Requests left in this minute.",
    "X-Ratelimit-Reset": "Start of the next minute, in seconds since 1970.",
}
# Control characters, except white space.
_CONTROL_CHARACTERS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_SPEECH_URL = r"^https?://[^/?#@]+/speeches/[0-9a-f]{32}\.wav$"
_INTRODUCTION = """A character and the URL of a speech recording become a video of that character speaking.

`video.generate` returns a `video_id` at once; poll `video.get` until the video is finished. Every response has the envelope
`{"code", "message", "data"}`; `code` 0 means success."""


def openapi_document(settings: Settings, known: Characters, base_url: str) -> Json:
    """Return the description that ``GET /openapi.json`` serves.

    Args:
        settings: The revision of the API, and its limits.
        known: The characters.
        base_url: The engine's URL.
    """
    paths = _seed_paths(settings) | (_later_paths(known) if settings.revision == "later" else {}) | _upload_paths()
    return {
        "openapi": "3.1.0",
        "info": {"title": "A2V", "version": __version__, "description": _INTRODUCTION},
        "servers": [{"url": base_url}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(settings, known),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token; also accepted without `Bearer`.",
                }
            },
        },
    }


# -- paths ------------------------------------------------------------------------------------------------------------


def _seed_paths(settings: Settings) -> dict[str, Json]:
    generate = _operation("videoGenerate", "Submit a video.", _ref("Submitted"), errors=(400, 404, 413, 415))
    generate["requestBody"] = {"required": True, "content": _json_content(_ref("Job"))}
    failed = {"oneOf": [_envelope(_ref("Video")), _ref("Refusal")]} if settings.revision == "seed" else None
    get = _operation("videoGet", "Get the status of a video.", _ref("Video"), query="video_id", like=_ID, reply=failed)
    return {
        wire.CHARACTER_LIST: {"get": _operation("characterList", "List the characters.", _list("Character"))},
        wire.VIDEO_GENERATE: {"post": generate},
        wire.VIDEO_GET: {"get": get},
    }


def _later_paths(known: Characters) -> dict[str, Json]:
    avatar_id = {"type": "string", "enum": list(known.specs)}
    speak = _operation("voiceGenerate", "Let a voice speak a text.", _ref("Speech"), errors=(400, 404, 413, 415))
    speak["requestBody"] = {"required": True, "content": _json_content(_ref("Text"))}
    poses = _operation(
        "avatarPoseList", "List the poses of an avatar.", _list("Pose"), query="avatar_id", like=avatar_id
    )
    return {
        wire.VIDEO_LIST: {"get": _operation("videoList", "List the videos, newest first.", _list("Video"))},
        wire.AVATAR_LIST: {"get": _operation("avatarList", "List the avatars with their poses.", _list("Avatar"))},
        wire.AVATAR_POSE_LIST: {"get": poses},
        wire.VOICE_LIST: {
            "get": _operation("voiceList", "List the voices; the engine needs its extra `voices`.", _list("Voice"))
        },
        wire.VOICE_GENERATE: {"post": speak},
    }


def _upload_paths() -> dict[str, Json]:
    sha256 = {"name": "sha256", "in": "path", "required": True, "schema": _SHA256}
    name = {
        "name": "name",
        "in": "query",
        "required": False,
        "schema": _TEXT,
        "description": "The name of the recording, to display.",
    }
    limits = _operation(
        "uploadLimits", "Get the limits of uploads. Other servers with this API have no uploads.", _ref("UploadLimits")
    )
    get = _operation(
        "uploadGet",
        "Ask for an upload, and keep it for longer. Its content cannot be read.",
        _ref("Upload"),
        errors=(400, 404, 503),
    )
    put = _operation(
        "uploadPut",
        "Upload a recording; use the audio_url in the response to submit videos of it.",
        _ref("Upload"),
        errors=(400, 408, 409, 411, 413, 503, 507),
    )
    put["requestBody"] = {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
    }
    get["parameters"] = put["parameters"] = [name]
    for call in (limits, get, put):
        # These requests do not count, so there is no limit to report.
        del call["responses"]["429"]
        for response in call["responses"].values():
            del response["headers"]
    return {
        wire.UPLOADS: {"get": limits},
        f"{wire.UPLOADS}/{{sha256}}": {"parameters": [sha256], "get": get, "put": put},
    }


_ERRORS = {
    400: "The request is invalid; `message` says why.",
    401: "The token is missing or wrong.",
    403: "The quota is used up, or the request comes from a web page of another origin.",
    404: "Not found; `code` is 10001. Any other `code` means that the engine has no voices.",
    408: "The body took too long.",
    409: "The body does not have the SHA-256 in the path.",
    411: "There is no Content-Length.",
    413: "The body is longer than 1 MiB, or 100 MiB for an upload.",
    415: "The body is not JSON.",
    421: "`Host` is not a name of this engine.",
    429: "Too many requests, the queue is full, or the machine has run out of a resource. `code` is 1009, and nothing was submitted.",
    503: "The machine has run out of a resource, such as disk space; `message` says which.",
    507: "The space for uploads is full.",
}


def _operation(
    operation: str,
    summary: str,
    data: Json,
    *,
    query: str | None = None,
    like: Json | None = None,
    errors: tuple[int, ...] = (),
    reply: Json | None = None,
) -> Json:
    parameters = [{"name": query, "in": "query", "required": True, "schema": like}] if query else []
    statuses = {401, 403, 421, 429, *(errors or (503,)), *((400, 404) if query else ())}
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": _response("Success.", reply or _envelope(data)),
            **{str(status): _response(_ERRORS[status], _ref("Refusal")) for status in sorted(statuses)},
        },
    }


def _response(description: str, schema: Json) -> Json:
    headers = {name: {"description": text, "schema": _TEXT} for name, text in _HEADERS.items()}
    return {"description": description, "headers": headers, "content": _json_content(schema)}


def _json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


# -- schemas ----------------------------------------------------------------------------------------------------------


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> Json:
    return {"type": "array", "items": _ref(name)}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _envelope(data: Json) -> Json:
    return _object({"code": {"const": wire.OK}, "message": _TEXT, "data": data})


def _schemas(settings: Settings, known: Characters) -> Json:
    names = {"name": _TEXT, "display_name": _TEXT, "gender": _TEXT, "preview_url": _URL}
    refusal = {"code": {**_NUMBER, "not": {"const": wire.OK}}, "message": _TEXT, "data": {"type": "null"}}
    schemas = {
        "Refusal": _object(refusal),
        "Character": _object({"model_id": _TEXT, **names}),
        "Job": _ref("JobOfCharacter"),
        "JobOfCharacter": _job_schema("model_id", list(known.specs), {}),
        "Submitted": _object({"video_id": _ID}),
        "UploadLimits": _object(
            {
                "max_bytes": {**_NUMBER, "description": "The largest recording."},
                "max_seconds": {"type": "number", "description": "The longest time that an upload may take."},
                "keep_seconds": {"type": "number", "description": "How long an upload is kept after its last use."},
            }
        ),
        "Upload": _object(
            {
                "audio_url": {**_TEXT, "description": "The URL to submit: upload://SHA256."},
                "size": {**_NUMBER, "description": "In bytes."},
                "expires": {**_NUMBER, "description": "The time of its deletion, in seconds since 1970."},
            }
        ),
        "Video": _object(
            {"video_id": _ID, "video_url": {**_URL, "type": ["string", "null"]}}, {"captions_url": _CAPTIONS_URL}
        ),
    }
    return schemas | (_later_schemas(settings, names, known) if settings.revision == "later" else {})


def _later_schemas(settings: Settings, names: Json, known: Characters) -> Json:
    status = {"type": "string", "enum": [status.value for status in VideoStatus if status is not VideoStatus.UNKNOWN]}
    video = {"video_id": _ID, "status": status, "video_url": {**_URL, "type": ["string", "null"]}}
    pose = {"pose_id": _TEXT, "name": _TEXT, "preview_url": _URL}
    voice: Json = dict.fromkeys(("voice_name", "gender", "language", "locale"), _TEXT)
    voice |= {"preview_url": _URL, "tags": {"type": "array", "items": _TEXT}}
    kinds = {"enum": ["human", "cg_human"]}
    nothing = {"type": "null"}
    message = "The reason of a failure, or a warning about a finished video, such as that the recording has no speech."
    return {
        "Job": {"oneOf": [_ref("JobOfCharacter"), _ref("JobOfPose")]},
        "JobOfCharacter": _job_schema(
            "model_id", list(known.specs), {"pose_id": nothing, "with_mask": _mask_schema(False)}
        ),
        "JobOfPose": _job_schema(
            "pose_id", list(known.poses), {"model_id": nothing, "with_mask": _mask_schema(False, True)}
        ),
        "Submitted": _object({"video_id": _ID, "status": {"const": VideoStatus.PENDING.value}}),
        "Video": _object(
            video, {"mask_video_url": _URL, "captions_url": _CAPTIONS_URL, "message": {**_TEXT, "description": message}}
        ),
        "Pose": _object(pose),
        "Voice": _object(voice),
        "Text": _object({"text": _text_schema(settings.text_limit), "voice_name": _voice_name_schema()}),
        "Speech": _object({"url": {**_URL, "description": "An `audio_url`, for a day."}}, {"words": _list("Word")}),
        "Word": _object({"text": _TEXT, "start": {"type": "number"}, "end": {"type": "number"}}),
        "Avatar": _object({"id": _TEXT, "avatar_type": kinds, **names, "poses": _list("Pose")}),
    }


def _job_schema(id_field: str, known: list[str], more: Json) -> Json:
    audio_url = {
        **_TEXT,
        "pattern": f"^({HTTP_URL}|{UPLOAD_URL})$",
        "description": "The URL of the recording: http(s)://…, the URL of an upload, or file:///… for files that the engine may read.",
    }
    job = _object({id_field: {"type": "string", "enum": known}, "audio_url": audio_url}, more | _option_schemas())
    return {**job, "additionalProperties": False, "allOf": _combinations()}


def _option_schemas() -> Json:
    """Return the schemas of the fields that the protocol does not have."""

    def one_of(values: tuple[Any, ...], description: str) -> Json:
        return {"enum": [*values, None], "description": description}

    ways = get_args(CaptionWay)
    background = (
        "The background: `character`, the character's own, which is the default; `transparent`, the default of `webm` and `mov`, "
        "and possible for `webp`; a colour; or the URL of a JPEG, PNG or WebP picture."
    )
    return {
        "size": one_of(SIZES, "The shorter side in pixels. By default a setting of the engine."),
        "format": one_of(get_args(Format), "The shape: 1:1, 9:16 or 16:9. By default a setting of the engine."),
        "fps": one_of(FRAME_RATES, "Frames per second. By default a setting of the engine."),
        "container": one_of(
            get_args(Container),
            "The format of the file: H.264 (the default), VP9, ProRes 4444, or animated pictures of at most "
            f"{MAX_ANIMATION_SECONDS:g} s without sound.",
        ),
        "mood": one_of(get_args(Mood), "The expression of the character. By default the voice determines it."),
        "background": {
            "type": ["string", "null"],
            "pattern": f"^({OWN}|{TRANSPARENT}|{COLOUR}|{HTTP_URL})$",
            "description": background,
        },
        "captions": {
            "anyOf": [
                {"enum": [*ways, None]},
                {"type": "array", "items": {"enum": [*ways]}, "minItems": 1},
            ],
            "description": "Where the captions appear: in a file of their own (`files`), whose `captions_url` is in the response of "
            "`video.get`; in a subtitle track (`track`); or burned into the picture (`burned`). A speech of this engine needs "
            "nothing else; other recordings need `captions_file` or `transcript`.",
        },
        "transcript": {
            "type": ["string", "null"],
            "pattern": f"^[^{_CONTROL_CHARACTERS}]*[^{_CONTROL_CHARACTERS}\\s][^{_CONTROL_CHARACTERS}]*$",
            "maxLength": MAX_CHARACTERS,
            "examples": ["Hello, and welcome."],
            "description": "The text that is spoken in the recording, in English, instead of `captions_file`: the engine finds the times of "
            f"its words. Needs the extra `transcripts`. At most {MAX_CHARACTERS:,} characters.",
        },
        "captions_file": {
            "type": ["string", "null"],
            "format": "captions",
            "maxLength": MAX_CHARACTERS,
            "examples": [to_srt([Cue(0.1, 1.5, ["Hello, and welcome."])])],
            "description": "The captions: the text of a SubRip (.srt) or WebVTT (.vtt) file of at most "
            f"{MAX_CHARACTERS:,} characters.",
        },
    }


def _combinations() -> list[Json]:
    """Return the rules on combinations of options, which ``video_options.read_options`` checks."""

    def rule(name: str, value: Any, then: Json, description: str) -> Json:
        condition = {"properties": {name: {"const": value}}, "required": [name]}
        return {"description": description, "if": condition, "then": then}

    slow = [rate for rate in FRAME_RATES if rate <= MAX_GIF_FPS]
    given = {"not": {"type": "null"}}
    text = {"properties": {"captions_file": {"type": "string"}}, "required": ["captions_file"]}
    transcript = {"properties": {"transcript": {"type": "string"}}, "required": ["transcript"]}
    speech = {"properties": {"audio_url": {"pattern": _SPEECH_URL}}}
    track = {
        "properties": {"captions": {"anyOf": [{"const": "track"}, {"type": "array", "contains": {"const": "track"}}]}}
    }
    with_alpha = {"properties": {"container": {"enum": WITH_ALPHA}}, "required": ["container"]}
    return [
        rule("container", "gif", {"properties": {"fps": {"enum": [*slow, None]}}}, f"At most {MAX_GIF_FPS} fps."),
        rule("background", TRANSPARENT, with_alpha, "Only some containers can be transparent."),
        rule(
            "with_mask", True, {"properties": {"container": {"enum": [WITH_MASK, None]}}}, f"A mask needs {WITH_MASK}."
        ),
        {
            "description": "Animated pictures have no subtitle track.",
            "if": {**track, "required": ["captions"]},
            "then": {"properties": {"container": {"enum": [*WITH_TRACK, None]}}},
        },
        {
            "description": "Captions need `captions_file` or `transcript`, unless the recording is a speech of this engine.",
            "if": {"properties": {"captions": given}, "required": ["captions"]},
            "then": {"anyOf": [text, transcript, speech]},
        },
        {
            "description": "`captions_file` and `transcript` need `captions`, which says where the captions appear.",
            "if": {"anyOf": [text, transcript]},
            "then": {"properties": {"captions": given}, "required": ["captions"]},
        },
        {"description": "`captions_file` and `transcript` exclude each other.", "not": {"allOf": [text, transcript]}},
    ]


def _text_schema(limit: int) -> Json:
    others = "Other Latin letters and common signs are allowed too; all other characters are rejected."
    pattern = f"^[ -~]{{0,{limit // 2}}}[A-Za-z][ -~]{{0,{limit // 2 - 1}}}$"
    return {**_TEXT, "pattern": pattern, "description": f"The text, at most {limit:,} characters. {others}"}


def _voice_name_schema() -> Json:
    try:
        return {"type": "string", "enum": list(voices.all_voices())}
    except ImportError:
        return _TEXT


def _mask_schema(*values: bool) -> Json:
    return {"enum": [*values, None], "description": "Whether to render a mask too; requires a `pose_id`."}
