"""The values that a server sends, as frozen attrs classes, and the errors in a manifest."""

from abc import abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import field, frozen

from a2v._values.serialization import ReadOnlyDict, Value
from a2v._values.text import redacted_repr

if TYPE_CHECKING:
    from a2v._values.html import HtmlView

T = TypeVar("T")

DEFAULT_RENDER_TIMEOUT: float = 86400.0
"""Default timeout for a render, in seconds: 24 hours."""


def read_only(mapping: Mapping[str, Any]) -> ReadOnlyDict:
    """Return a read-only copy of a mapping."""
    if not isinstance(mapping, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may pass anything
        raise TypeError(f"raw must be a mapping, got a value of type {type(mapping).__name__}")
    return ReadOnlyDict(mapping)


def _view(name: str, facts: Mapping[str, str], **more: Any) -> "HtmlView":
    from a2v._values.html import HtmlView  # noqa: PLC0415  # only notebooks need it

    return HtmlView(name, facts, **more)


class HtmlReprMixin(Value):
    """Base of values that notebooks display as HTML."""

    __slots__ = ()

    @abstractmethod
    def _to_html_view(self) -> "HtmlView": ...

    def _repr_html_(self) -> str:
        from a2v._values import html  # noqa: PLC0415  # as above

        return html.card(self._to_html_view())


class ResultList(list[T]):
    """A list of values that notebooks display as a table. It behaves like any other list."""

    def _repr_html_(self) -> str | None:
        from a2v._values import html  # noqa: PLC0415  # as above

        rows = [value._to_html_view() for value in self if isinstance(value, HtmlReprMixin)]  # noqa: SLF001  # same module
        return html.table(rows) if len(rows) == len(self) else None


class VideoStatus(StrEnum):
    """The status of a video, in the protocol's own words."""

    PENDING = "pending"
    """The video is in the server's queue."""
    IN_PROGRESS = "in_progressing"
    """The video is being rendered. On a server without statuses, each video has this status until it has a URL."""
    FINISHED = "finished"
    """The video can be downloaded."""
    FAILED = "error"
    """The render failed. This is final."""
    UNKNOWN = "unknown"
    """A status that this version of a2v does not know. ``video.raw["status"]`` has the original word."""

    @property
    def is_terminal(self) -> bool:
        """Whether the status is final."""
        return self in (VideoStatus.FINISHED, VideoStatus.FAILED)


@frozen(eq=False, repr=False, kw_only=True)
class Character(HtmlReprMixin):
    """A character that can speak in a video.

    Attributes:
        model_id: The id to pass to ``videos.generate``.
        name: The service's internal name.
        display_name: The name to show to people.
        gender: The gender as the service states it, usually ``"female"`` or ``"male"``.
        preview_url: The URL of a picture. It may be pre-signed and expire.
        raw: Everything that the server sent.
    """

    model_id: str
    name: str = ""
    display_name: str = ""
    gender: str = ""
    preview_url: str = ""
    raw: Mapping[str, Any] = field(factory=ReadOnlyDict, converter=read_only, eq=False, repr=False)

    def _to_html_view(self) -> "HtmlView":
        facts = {"model_id": self.model_id, "gender": self.gender}
        return _view(self.display_name or self.name, facts, picture=self.preview_url)


@frozen(eq=False, repr=False, kw_only=True)
class Pose(HtmlReprMixin):
    """A pose of an avatar. Only servers of the service's later revision have poses.

    Attributes:
        pose_id: The id to pass to ``videos.generate``.
        name: The service's name for the pose.
        preview_url: The URL of a picture. It may be pre-signed and expire.
        raw: Everything that the server sent.
    """

    pose_id: str
    name: str = ""
    preview_url: str = ""
    raw: Mapping[str, Any] = field(factory=ReadOnlyDict, converter=read_only, eq=False, repr=False)

    def _to_html_view(self) -> "HtmlView":
        return _view(self.name, {"pose_id": self.pose_id}, picture=self.preview_url)


@frozen(eq=False, repr=False, kw_only=True)
class Avatar(HtmlReprMixin):
    """A speaker with one or more poses. Only servers of the service's later revision have avatars.

    Attributes:
        avatar_id: The id to pass to ``avatars.poses``.
        avatar_type: ``"human"`` or ``"cg_human"``, as the service states it.
        name: The service's internal name.
        display_name: The name to show to people.
        gender: The gender as the service states it, usually ``"female"`` or ``"male"``.
        preview_url: The URL of a picture. It may be pre-signed and expire.
        poses: The poses, without duplicates.
        raw: Everything that the server sent.
    """

    avatar_id: str
    avatar_type: str = ""
    name: str = ""
    display_name: str = ""
    gender: str = ""
    preview_url: str = ""
    poses: tuple[Pose, ...] = ()
    raw: Mapping[str, Any] = field(factory=ReadOnlyDict, converter=read_only, eq=False, repr=False)

    def _to_html_view(self) -> "HtmlView":
        facts = {"avatar_id": self.avatar_id, "gender": self.gender}
        parts = [pose._to_html_view() for pose in self.poses]  # noqa: SLF001  # same module
        return _view(self.display_name or self.name, facts, picture=self.preview_url, parts=parts)


@frozen(eq=False, repr=False, kw_only=True)
class Voice(HtmlReprMixin):
    """A voice that can speak a text. Only servers of the service's later revision have voices.

    Attributes:
        voice_name: The name to pass to ``voices.generate`` and ``videos.generate``.
        gender: The gender as the service states it, usually ``"female"`` or ``"male"``.
        language: The language that the voice speaks, in the service's words.
        locale: The language and region as a tag such as ``"en-US"``.
        preview_url: The URL of a sample. It may be pre-signed and expire.
        tags: The service's words about the voice.
        raw: Everything that the server sent.
    """

    voice_name: str
    gender: str = ""
    language: str = ""
    locale: str = ""
    preview_url: str = ""
    tags: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(factory=ReadOnlyDict, converter=read_only, eq=False, repr=False)

    def _to_html_view(self) -> "HtmlView":
        facts = {"voice_name": self.voice_name, "gender": self.gender, "language": self.locale or self.language}
        return _view("", facts | {"tags": ", ".join(self.tags)}, links={"sample": self.preview_url})


@frozen(eq=False, repr=False, kw_only=True)
class Word(Value):
    """A spoken word.

    Attributes:
        text: The word as it is written, with its punctuation.
        start: The beginning of the word, in seconds from the beginning of the recording.
        end: The end of the word, in the same unit.
    """

    text: str
    start: float
    end: float


@frozen(eq=False, repr=False, kw_only=True)
class Speech(Value):
    """A synthesized text. Its ``repr`` hides the signature of the URL.

    Attributes:
        url: The URL of the recording, for ``audio_url``. Usually pre-signed: it expires, and anyone who has it can listen.
        text: The text that was synthesized.
        voice_name: The voice that speaks it.
        words: The words with their times, from an a2v engine. Empty on other servers: they are not part of the protocol.
        raw: Everything that the server sent.
    """

    url: str = field(repr=redacted_repr)
    text: str
    voice_name: str
    words: tuple[Word, ...] = ()
    raw: Mapping[str, Any] = field(factory=ReadOnlyDict, converter=read_only, eq=False, repr=False)


@frozen(eq=False, repr=False, kw_only=True)
class Video(HtmlReprMixin):
    """A snapshot of a video. Its ``repr`` hides the signatures of URLs.

    Attributes:
        video_id: The server's id of the video.
        status: The status when the snapshot was taken.
        video_url: The URL to download the finished video from. Usually pre-signed: it expires, and anyone who has it can
            download the video.
        mask_video_url: The URL of the mask, if one was requested.
        captions_url: The URL of the captions, a WebVTT file, if they were requested from an a2v engine.
        raw: Everything that the server sent.
    """

    video_id: str
    status: VideoStatus
    video_url: str | None = field(default=None, repr=redacted_repr)
    mask_video_url: str | None = field(default=None, repr=redacted_repr)
    captions_url: str | None = field(default=None, repr=redacted_repr)
    raw: Mapping[str, Any] = field(factory=ReadOnlyDict, converter=read_only, eq=False, repr=False)

    @property
    def message(self) -> str | None:
        """The server's message: the reason of a failure or, from an a2v engine, a warning about a finished video.

        ``None`` if there is none.
        """
        message = self.raw.get("message")
        return message if isinstance(message, str) and message else None

    @property
    def is_terminal(self) -> bool:
        """Whether the video has failed, or is finished *and* has a URL.

        A server may report ``finished`` a moment before it has the URL; the video is not ready until then.
        """
        return self.status is VideoStatus.FAILED or (self.status is VideoStatus.FINISHED and bool(self.video_url))

    def _to_html_view(self) -> "HtmlView":
        status = str(self.raw.get("status", "")) if self.status is VideoStatus.UNKNOWN else self.status.value
        links = {"video": self.video_url or "", "mask": self.mask_video_url or "", "captions": self.captions_url or ""}
        facts = {"video_id": self.video_id, "status": status, "message": self.message or ""}
        return _view("", facts, player=self.video_url or "", links=links)


@frozen(eq=False, repr=False)
class RowError(Value):
    """A problem in a manifest.

    Attributes:
        row: The line of the file or the row of the sheet, from 1 as in editors; ``None``: the problem concerns the whole manifest.
        column: The header of the column, as written in the file; ``None``: the problem concerns the whole row.
        problem: What is wrong, and how to correct it.
    """

    row: int | None
    column: str | None
    problem: str

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [self.column] if self.column is not None else []
        return f"{', '.join(place)}: {self.problem}" if place else self.problem
