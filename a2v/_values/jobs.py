"""Jobs, the states of a job in a batch, and the public part of a journal's record."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from math import isfinite
from typing import Any, overload
from urllib.parse import urlsplit

from attrs import field, frozen

from a2v._values.base_errors import InvalidArgumentError
from a2v._values.models import read_only
from a2v._values.serialization import ReadOnlyDict, Value
from a2v._values.text import describe, find_invisible, find_unwritable, redacted_repr, strip

# `upload` is the scheme of recordings that were uploaded to an engine.
_SCHEMES = {"http", "https", "file", "upload"}
# Not allowed on Windows; a manifest should work on every system.
_UNSAFE_IN_NAMES = re.compile(r'[/\\:*?"<>|]')
_WINDOWS_DEVICES = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL
)
# In bytes. Leaves room for an extension and ".part" within the 255 bytes that file systems allow.
_MAX_NAME_SIZE = 200


def _check_text(what: str, value: str) -> None:
    found = find_invisible(value)
    if not found and " " in value:
        found = describe(value, value.index(" "))
    if found:
        raise InvalidArgumentError(f"{what} must not contain {found}, got {redacted_repr(value)}")


def _check_id(what: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{what}, got {redacted_repr(value)}")
    _check_text(what.partition(" ")[0], value)


def _check_model_id(job: "Job", _: object, value: Any) -> None:
    if job.pose_id is not None and value is not None:
        raise InvalidArgumentError("a job has a model_id or a pose_id, not both")
    if job.pose_id is None:
        _check_id("model_id must be a character's id such as 'eva_a0008'", value)


def _check_pose_id(_: object, __: object, value: Any) -> None:
    if value is not None:
        _check_id("pose_id must be the id of an avatar's pose", value)


def _check_with_mask(job: "Job", _: object, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"with_mask must be True or False, got {redacted_repr(value)}")
    if value and job.pose_id is None:
        raise InvalidArgumentError("with_mask requires a pose_id: servers make no mask for a model_id")


def _check_audio_url(job: "Job", _: object, value: Any) -> None:
    if job.text is not None:
        if value is not None:
            raise InvalidArgumentError("a job has an audio_url or a text, not both")
        return
    if value is None and job.voice_name is not None:
        raise InvalidArgumentError("voice_name requires a text: the words that the voice speaks")
    # Errors are raised here, because the parser's own messages quote the URL with its signature.
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"audio_url must be the URL of a speech recording, got {redacted_repr(value)}")
    _check_text("audio_url", value)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidArgumentError(f"audio_url is not a valid URL, got {redacted_repr(value)}") from None
    if parts.scheme.lower() not in _SCHEMES:
        raise InvalidArgumentError(
            f"audio_url must be a URL that the server can download (https://…), got {redacted_repr(value)}; "
            "for a local file, pass the URL that client.upload returns, or a file:///… URL if the engine may read that folder"
        )
    if parts.scheme.lower() != "file" and not parts.hostname:
        raise InvalidArgumentError(f"audio_url has no host, got {redacted_repr(value)}")


def _check_job_text(_: object, __: object, value: Any) -> None:
    if value is not None:
        check_text(value)


def check_text(value: Any) -> None:
    """Check a text to be spoken. Its length is not checked, because the limit depends on the server."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"text must be the text to be spoken, a string, got {redacted_repr(value)}")
    if not strip(value):
        raise InvalidArgumentError(f"text must be the text to be spoken, got {value!r}, which has no visible character")
    if found := find_unwritable(value):
        raise InvalidArgumentError(f"text must not contain {found}")


def _check_voice_name(job: "Job", _: object, value: Any) -> None:
    if value is not None or job.text is not None:
        check_voice_name(value)
    if value is not None and job.text is None and job.audio_url is not None:
        raise InvalidArgumentError(
            "voice_name requires a text: with an audio_url, the voice is the one in the recording"
        )


def check_voice_name(value: Any) -> None:
    """Check the name of a voice."""
    # Unlike an id it may contain spaces: it is never part of a URL.
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgumentError(
            f"voice_name must be the name of a voice, from voices.list, got {redacted_repr(value)}"
        )
    if found := find_invisible(value):
        raise InvalidArgumentError(f"voice_name must not contain {found}, got {redacted_repr(value)}")


def _check_name(_: object, __: object, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"name must be the name of a file without its extension, got {redacted_repr(value)}")
    if problem := _name_problem(value):
        raise InvalidArgumentError(f"name must be usable as a file name: {problem}, got {redacted_repr(value)}")


def _name_problem(name: str) -> str | None:
    """Return why a name cannot be used as a file name on every system; ``None`` if it can."""
    if found := find_invisible(name, is_name=True):
        return f"it contains {found}"
    if unsafe := _UNSAFE_IN_NAMES.search(name):
        return f"it contains {unsafe[0]!r}"
    if name.startswith("."):
        return "it begins with a dot"
    if name != name.strip().rstrip("."):
        return "it begins or ends with a space, or ends with a dot"
    if _WINDOWS_DEVICES.fullmatch(name):
        return "Windows reserves it for a device"
    size = len(name.encode())
    return f"it has {size} bytes in UTF-8, and {_MAX_NAME_SIZE} are allowed" if size > _MAX_NAME_SIZE else None


def _extra(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"extra must be a mapping, got {redacted_repr(value)}")
    return read_only(value)


def _check_extra(_: object, __: object, value: Mapping[str, Any]) -> None:
    for key, cell in value.items():
        for what, text in (("the name of an extra column", key), (f"the extra column {key!r}", cell)):
            if character := next(filter(None, map(find_unwritable, _texts(text))), None):
                raise InvalidArgumentError(f"{what} contains {character}")


_PROTOCOL_FIELDS = {"model_id", "pose_id", "audio_url", "text", "voice_name", "with_mask"}
_JSON_TYPES = (str, bool, int, float, type(None), Mapping, list, tuple)


def _options(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"options must be a mapping, such as {{'fps': 30}}, got {redacted_repr(value)}")
    return read_only(value)


def _check_options(_: object, __: object, value: Mapping[Any, Any]) -> None:
    for name, option in value.items():
        if not isinstance(name, str) or not name.strip():
            raise InvalidArgumentError(f"the name of an option must be text, got {redacted_repr(name)}")
        if name in _PROTOCOL_FIELDS:
            raise InvalidArgumentError(f"options must not contain {name}: pass it as a separate argument")
        for text in _texts({name: option}):
            if found := find_unwritable(text):
                raise InvalidArgumentError(f"the option {name!r} contains {found}")
        if not all(_is_json(part) for part in _parts(option)):
            raise InvalidArgumentError(f"the option {name!r} cannot be written as JSON: {redacted_repr(option)}")


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value)
    return isinstance(value, _JSON_TYPES) and not (isinstance(value, float) and not isfinite(value))


def _redacted_options(options: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{name!r}: {redacted_repr(option)}" for name, option in options.items()) + "}"


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in a JSON value, including keys."""
    for part in _parts(value):
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            yield from (key for key in part if isinstance(key, str))


def _parts(value: Any) -> Iterator[Any]:
    """Yield a JSON value and all values nested in it, except keys."""
    pending = [value]
    while pending:
        part = pending.pop()
        yield part
        if isinstance(part, Mapping):
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part


@frozen(eq=False, repr=False, init=False)
class Job(Value):
    """A video to make: ``Job(model_id, audio_url)``, or ``Job(pose_id=…, audio_url=…)`` on servers that have poses.

    On servers that have voices, ``Job(model_id, text=…, voice_name=…)`` has the text synthesized first.

    Its ``repr`` hides the signatures of URLs.

    Attributes:
        model_id: The character that speaks; ``None`` if the job has a ``pose_id``.
        audio_url: The URL of the speech recording. The server downloads it. ``None`` if the job has a ``text``.
        name: The name of the output file in a batch, without extension; ``None``: the job's position in the batch.
        pose_id: The pose of the avatar that speaks; ``None`` if the job has a ``model_id``.
        with_mask: Whether to make a mask that separates the speaker from the background; ``False`` by default. Requires a
            ``pose_id``.
        text: The text to be spoken; ``None`` if the job has an ``audio_url``.
        voice_name: The voice that speaks the text, from ``voices.list``. Required with a ``text``.
        options: Additional fields of the request that are not part of the protocol, such as ``{"fps": 30}`` for an a2v engine. They
            are sent unchanged; a server may ignore or reject them. None by default.
        extra: Your own data, such as the other columns of a manifest; none by default. It is not sent to the server.

    Raises:
        InvalidArgumentError: An argument is invalid; the message names the argument and the reason. Strings with invisible
            characters, which are often part of text that is pasted from a browser or a chat, are invalid too.
    """

    model_id: str | None = field(validator=_check_model_id)
    audio_url: str | None = field(validator=_check_audio_url, repr=redacted_repr)
    name: str | None = field(validator=_check_name)
    pose_id: str | None = field(validator=_check_pose_id)
    with_mask: bool = field(validator=_check_with_mask)
    text: str | None = field(validator=_check_job_text)
    voice_name: str | None = field(validator=_check_voice_name)
    # Not part of the hash, because mappings are not hashable.
    options: Mapping[str, Any] = field(converter=_options, validator=_check_options, repr=_redacted_options, hash=False)
    extra: Mapping[str, Any] = field(converter=_extra, validator=_check_extra, eq=False, repr=False)

    @overload
    def __init__(
        self,
        model_id: str,
        audio_url: str,
        name: str | None = None,
        *,
        options: Mapping[str, Any] = ...,
        extra: Mapping[str, Any] = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        pose_id: str,
        audio_url: str,
        name: str | None = None,
        with_mask: bool = False,
        options: Mapping[str, Any] = ...,
        extra: Mapping[str, Any] = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        model_id: str,
        *,
        text: str,
        voice_name: str,
        name: str | None = None,
        options: Mapping[str, Any] = ...,
        extra: Mapping[str, Any] = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        pose_id: str,
        text: str,
        voice_name: str,
        name: str | None = None,
        with_mask: bool = False,
        options: Mapping[str, Any] = ...,
        extra: Mapping[str, Any] = ...,
    ) -> None: ...

    def __init__(
        self,
        model_id: str | None = None,
        audio_url: str | None = None,
        name: str | None = None,
        *,
        pose_id: str | None = None,
        with_mask: bool = False,
        text: str | None = None,
        voice_name: str | None = None,
        options: Mapping[str, Any] = ReadOnlyDict(),
        extra: Mapping[str, Any] = ReadOnlyDict(),
    ) -> None:
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]  # made by attrs
            model_id, audio_url, name, pose_id, with_mask, text, voice_name, options, extra
        )


class JobState(StrEnum):
    """The state of a job in a batch, as recorded in the journal."""

    PENDING = "pending"
    """Not submitted."""
    SUBMITTING = "submitting"
    """The submission, or the synthesis of the job's text before it, is in progress. After a crash in this state, the outcome
    is unknown."""
    UNKNOWN = "unknown"
    """The server may or may not have accepted the job, or synthesized its text. It is only resubmitted if you ask for it."""
    SUBMITTED = "submitted"
    """The server accepted the job."""
    FINISHED = "finished"
    """The render is finished, but the video is not saved yet."""
    DONE = "done"
    """The render is finished, and the video is saved if the batch saves videos."""
    FAILED = "failed"
    """The render failed."""
    REJECTED = "rejected"
    """The server rejected the job."""
    LOST = "lost"
    """The job was submitted, but the server no longer has its video. Each run polls it again, in case it reappears."""

    @property
    def is_terminal(self) -> bool:
        """Whether a batch does nothing more with the job unless you ask for it."""
        return self in (JobState.DONE, JobState.FAILED, JobState.REJECTED)


@frozen(eq=False, repr=False, kw_only=True)
class JournalEntry(Value):
    """The public part of a journal's record of a job.

    Attributes:
        job: The job, without ``extra`` and without the query of its ``audio_url``, which may be a secret.
        state: The state of the job.
        video_id: The id of the video; ``None`` before the submission.
        path: The path of the saved video; ``None`` if it was not saved.
        error: The error message, if the job ended with an error.
        place: The position of the job in the last run of the batch, from 0; ``None``: that run did not include the job.
    """

    job: Job
    state: JobState
    video_id: str | None = None
    path: str | None = None
    error: str | None = None
    place: int | None = None
