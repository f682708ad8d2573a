"""The values that a2v takes and gives. All are frozen and do no I/O."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from attrs import field, fields_dict, frozen

from a2v import _html
from a2v._core import arguments
from a2v._core.text import describe, discreet, find_invisible, find_unwritable
from a2v._html import HtmlView
from a2v.errors import A2VError, InvalidArgumentError

T = TypeVar("T")

DEFAULT_RENDER_TIMEOUT: float = 86400.0
"""Seconds to wait for a render by default: 24 hours."""

_SCHEMES = {"http", "https", "file"}
# Windows refuses these, and a manifest made on one machine should work on another.
_UNSAFE_IN_NAMES = re.compile(r'[/\\:*?"<>|]')
_DEVICES = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL
)
# 200 leave room for an extension and a ".part" within the 255 bytes that file systems allow.
_LONGEST_NAME = 200


def _read_only(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(arguments.mapping("extra (of a job) or raw", raw)))


class _Value:
    """What can be pickled although it holds a read-only mapping."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        kind: Any = type(self)
        state = {name: getattr(self, name) for name in fields_dict(kind)}
        plain = {name: dict(kept) if isinstance(kept, MappingProxyType) else kept for name, kept in state.items()}
        return _rebuild, (kind, plain)


def _rebuild(kind: type[Any], state: dict[str, Any]) -> Any:
    return kind(**state)


class _HtmlRepr(_Value):
    """What a notebook shows as more than its ``repr``."""

    __slots__ = ()

    @abstractmethod
    def _shown(self) -> HtmlView: ...

    def _repr_html_(self) -> str:
        return _html.card(self._shown())


class ResultList(list[T]):
    """A list of values, which a notebook shows as a table. In every other respect it is a list."""

    def _repr_html_(self) -> str | None:
        rows = [value._shown() for value in self if isinstance(value, _HtmlRepr)]  # noqa: SLF001  # of this module
        return _html.table(rows) if len(rows) == len(self) else None


class VideoStatus(StrEnum):
    """Where a video is on its way, in the wire's own words."""

    PENDING = "pending"
    """It waits in line."""
    IN_PROGRESS = "in_progressing"
    """It is being rendered; also what a server without statuses means while it shows no URL."""
    FINISHED = "finished"
    """It can be fetched."""
    FAILED = "error"
    """It will never be finished."""
    UNKNOWN = "unknown"
    """A word this version of a2v has not heard of; ``video.raw["status"]`` keeps it."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to a video in this status."""
        return self in (VideoStatus.FINISHED, VideoStatus.FAILED)


@frozen(kw_only=True)
class Character(_HtmlRepr):
    """Somebody who can speak.

    Attributes:
        model_id: What ``videos.generate`` wants to know.
        name: The service's name for the character.
        display_name: The name to show to people.
        gender: As the service says it, usually ``"female"`` or ``"male"``.
        preview_url: A picture. It may be pre-signed and expire.
        raw: All that the server sent.
    """

    model_id: str
    name: str = ""
    display_name: str = ""
    gender: str = ""
    preview_url: str = ""
    raw: Mapping[str, Any] = field(factory=dict, converter=_read_only, eq=False, repr=False)

    def _shown(self) -> HtmlView:
        facts = {"model_id": self.model_id, "gender": self.gender}
        return HtmlView(self.display_name or self.name, facts, picture=self.preview_url)


@frozen(kw_only=True)
class Pose(_HtmlRepr):
    """A way in which an avatar can be shown. Servers of the service's later revision have them.

    Attributes:
        pose_id: What ``videos.generate`` wants to know.
        name: The service's name for the pose.
        preview_url: A picture. It may be pre-signed and expire.
        raw: All that the server sent.
    """

    pose_id: str
    name: str = ""
    preview_url: str = ""
    raw: Mapping[str, Any] = field(factory=dict, converter=_read_only, eq=False, repr=False)

    def _shown(self) -> HtmlView:
        return HtmlView(self.name, {"pose_id": self.pose_id}, picture=self.preview_url)


@frozen(kw_only=True)
class Avatar(_HtmlRepr):
    """Somebody who can speak, in one pose or another. Servers of the service's later revision have them.

    Attributes:
        avatar_id: What ``avatars.poses`` wants to know.
        avatar_type: ``"human"`` or ``"cg_human"``, as the service says it.
        name: The service's name for the avatar.
        display_name: The name to show to people.
        gender: As the service says it, usually ``"female"`` or ``"male"``.
        preview_url: A picture. It may be pre-signed and expire.
        poses: The poses, each once.
        raw: All that the server sent.
    """

    avatar_id: str
    avatar_type: str = ""
    name: str = ""
    display_name: str = ""
    gender: str = ""
    preview_url: str = ""
    poses: tuple[Pose, ...] = ()
    raw: Mapping[str, Any] = field(factory=dict, converter=_read_only, eq=False, repr=False)

    def _shown(self) -> HtmlView:
        facts = {"avatar_id": self.avatar_id, "gender": self.gender}
        parts = [pose._shown() for pose in self.poses]  # noqa: SLF001  # of this module
        return HtmlView(self.display_name or self.name, facts, picture=self.preview_url, parts=parts)


@frozen(kw_only=True)
class Video(_HtmlRepr):
    """One look at a video. Its ``repr`` does not show what signs a URL.

    Attributes:
        video_id: What the server calls it.
        status: Where it is on its way.
        video_url: Where to fetch it once finished. Usually pre-signed: it expires, and whoever has it can fetch.
        mask_video_url: Where to fetch the mask, if one was asked for.
        raw: All that the server sent.
    """

    video_id: str
    status: VideoStatus
    video_url: str | None = field(default=None, repr=discreet)
    mask_video_url: str | None = field(default=None, repr=discreet)
    raw: Mapping[str, Any] = field(factory=dict, converter=_read_only, eq=False, repr=False)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen: it failed, or it is finished *and* can be fetched.

        A server may say ``finished`` a moment before it has the URL (see the protocol); that is not the end yet.
        """
        return self.status is VideoStatus.FAILED or (self.status is VideoStatus.FINISHED and bool(self.video_url))

    def _shown(self) -> HtmlView:
        word = str(self.raw.get("status", "")) if self.status is VideoStatus.UNKNOWN else self.status.value
        message = self.raw.get("message")
        links = {"video": self.video_url or "", "mask": self.mask_video_url or ""}
        facts = {"video_id": self.video_id, "status": word, "message": message if isinstance(message, str) else ""}
        return HtmlView("", facts, player=self.video_url or "", links=links)


def _check_text(what: str, value: str) -> None:
    found = find_invisible(value)
    if not found and " " in value:
        found = describe(value, value.index(" "))
    if found:
        raise InvalidArgumentError(f"{what} must not contain {found}, got {discreet(value)}")


def _check_id(what: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{what}, got {discreet(value)}")
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
        raise InvalidArgumentError(f"with_mask must be True or False, got {discreet(value)}")
    if value and job.pose_id is None:
        raise InvalidArgumentError("with_mask goes with a pose_id: servers make no mask for a model_id")


def _check_audio_url(_: object, __: object, value: Any) -> None:
    # No message has the words of the parser, which quote the URL with what gives access.
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"audio_url must be the URL of a speech recording, got {discreet(value)}")
    _check_text("audio_url", value)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidArgumentError(f"audio_url is not a valid URL, got {discreet(value)}") from None
    if parts.scheme.lower() not in _SCHEMES:
        raise InvalidArgumentError(
            f"audio_url must be a URL that the server can download (https://…), got {discreet(value)}; "
            "a local file works only with a local engine that may read its folder (file:///…)"
        )
    if parts.scheme.lower() != "file" and not parts.hostname:
        raise InvalidArgumentError(f"audio_url has no host, got {discreet(value)}")


def _check_name(_: object, __: object, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"name must be the name of a file without its extension, got {discreet(value)}")
    if problem := _unsafe(value):
        raise InvalidArgumentError(f"name must be usable as a file name: {problem}, got {discreet(value)}")


def _unsafe(name: str) -> str | None:
    if found := find_invisible(name, is_name=True):
        return f"it contains {found}"
    if refused := _UNSAFE_IN_NAMES.search(name):
        return f"it contains {refused[0]!r}"
    if name.startswith("."):
        return "it begins with a dot"
    if name != name.strip().rstrip("."):
        return "it begins or ends with a space, or ends with a dot"
    if _DEVICES.fullmatch(name):
        return "Windows reserves it for a device"
    size = len(name.encode())
    return f"it has {size} bytes in UTF-8, and {_LONGEST_NAME} are allowed" if size > _LONGEST_NAME else None


def _extra(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"extra must be a mapping, got {discreet(value)}")
    return _read_only(value)


def _check_extra(_: object, __: object, value: Mapping[str, Any]) -> None:
    for key, cell in value.items():
        for what, text in (("the name of an extra column", key), (f"the extra column {key!r}", cell)):
            if character := next(filter(None, map(find_unwritable, _texts(text))), None):
                raise InvalidArgumentError(f"{what} contains {character}")


def _texts(value: Any) -> Iterator[str]:
    """All text in a value, which may be as deep as JSON."""
    values = [value]
    while values:
        one = values.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            values += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            values += one


@frozen(init=False)
class Job(_Value):
    """One video to make: ``Job(model_id, audio_url)``, or ``Job(pose_id=…, audio_url=…)`` where the server has poses.

    Its ``repr`` does not show what signs a URL.

    Attributes:
        model_id: Which character speaks; ``None`` if the job has a ``pose_id``.
        audio_url: What it says: the URL of a recording that the server can download.
        name: Names the output file of a batch, without extension; the job's place in the batch if ``None``.
        pose_id: Which pose of which avatar speaks; ``None`` if the job has a ``model_id``.
        with_mask: Whether a mask is made too, which tells the speaker from the background. Needs a ``pose_id``.
        extra: What else is known of the job, such as the other columns of a manifest. It is not sent anywhere.

    Raises:
        InvalidArgumentError: An argument cannot be right; the message says which and why. Text with invisible characters,
            which a paste from a browser or a chat may bring, is refused too.
    """

    model_id: str | None = field(validator=_check_model_id)
    audio_url: str = field(validator=_check_audio_url, repr=discreet)
    name: str | None = field(validator=_check_name)
    pose_id: str | None = field(validator=_check_pose_id)
    with_mask: bool = field(validator=_check_with_mask)
    extra: Mapping[str, Any] = field(converter=_extra, validator=_check_extra, eq=False, repr=False)

    @overload
    def __init__(
        self, model_id: str, audio_url: str, name: str | None = None, *, extra: Mapping[str, Any] = ...
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        pose_id: str,
        audio_url: str,
        name: str | None = None,
        with_mask: bool = False,
        extra: Mapping[str, Any] = ...,
    ) -> None: ...

    def __init__(
        self,
        model_id: str | None = None,
        audio_url: str = "",
        name: str | None = None,
        *,
        pose_id: str | None = None,
        with_mask: bool = False,
        extra: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]  # made by attrs
            model_id, audio_url, name, pose_id, with_mask, extra
        )


@frozen(kw_only=True)
class Outcome:
    """How a job of a batch ended.

    Attributes:
        index: The job's place in the input, from 0.
        job: The job itself.
        video: The last look at its video, if it got that far.
        path: Where the video was saved, if it was.
        mask_path: Where its mask was saved, if it was.
        error: What went wrong, if something did.
    """

    index: int
    job: Job
    video: Video | None = None
    path: Path | None = None
    mask_path: Path | None = None
    error: A2VError | None = None

    @property
    def ok(self) -> bool:
        """Whether the video is finished and, where it was to be saved, saved."""
        return self.error is None


@frozen
class RowError:
    """Something that is wrong with a manifest.

    Attributes:
        row: The line in the file, or the row in the sheet, counted from 1 as editors do; ``None``: the whole manifest.
        column: Which of the row's cells: by its header, as it is written there; ``None``: the whole row.
        problem: What is wrong, and what would be right.
    """

    row: int | None
    column: str | None
    problem: str

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [self.column] if self.column is not None else []
        return f"{', '.join(place)}: {self.problem}" if place else self.problem
