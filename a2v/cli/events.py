"""The events of a command: immutable values that a renderer turns into output.

Commands emit events to an ``EventStream`` and never print. The renderer, chosen once, decides what a terminal, a pipe or
a program that reads JSON gets to see of each event.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from a2v import Avatar, Character, Pace, Progress, Video, VideoStatus, Voice
from a2v._core.settings import Secret
from a2v.cli.job_status import JobStatus
from a2v.cli.terminal import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from a2v._core.file_names import FileKind  # noqa: TC004  # attrs does not evaluate annotations
    from a2v._diagnostics import Check  # noqa: TC004  # attrs does not evaluate annotations
    from a2v.cli.pictures import Picture  # noqa: TC004  # as above


@frozen
class TrackedVideo:
    """A video and its destination.

    Attributes:
        video_id: Its id.
        label: Its name on a terminal.
        target: The path to save it to; ``None`` if it is not saved.
        side_targets: The paths to save the files beside it to, its mask and its captions, with their kinds.
        snapshot: The last snapshot; ``None`` before the first.
        path: The path once saved.
        saved_beside: The absolute paths of the files beside it that are saved, by their targets.
        received: The number of bytes downloaded so far.
        size: The number of bytes of the file being downloaded, if known.
        since: The monotonic time at which the command began to track it.
    """

    video_id: str
    label: str
    target: Path | None = None
    side_targets: Mapping[Path, FileKind] = field(factory=dict)
    snapshot: Video | None = None
    path: Path | None = None
    saved_beside: Mapping[Path, Path] = field(factory=dict)
    received: int = 0
    size: int | None = None
    since: float = field(factory=time.monotonic)

    @property
    def status(self) -> str | None:
        """The status as the server sent it, also one that this version does not know."""
        if self.snapshot is None:
            return None
        sent = self.snapshot.raw.get("status") if self.snapshot.status is VideoStatus.UNKNOWN else None
        return sent or self.snapshot.status.value

    @property
    def mask_path(self) -> Path | None:
        """The path of its mask once saved."""
        return next((path for target, path in self.saved_beside.items() if self.side_targets[target] == "mask"), None)

    @property
    def captions_paths(self) -> list[Path]:
        """The paths of its captions once saved."""
        return [path for target, path in self.saved_beside.items() if self.side_targets[target] == "captions"]

    @property
    def missing_beside(self) -> list[FileKind]:
        """The kinds of the files beside it that are not saved yet."""
        return [kind for target, kind in self.side_targets.items() if target not in self.saved_beside]

    @property
    def failed(self) -> bool:
        """Whether the render failed."""
        return self.snapshot is not None and self.snapshot.status is VideoStatus.FAILED

    @property
    def message(self) -> str | None:
        """The server's message, usually the reason of a failure."""
        return self.snapshot.message if self.snapshot else None

    @property
    def warning(self) -> str | None:
        """The server's warning about the finished video."""
        if not self.message or not self.rendered or self.failed:
            return None
        name = shown_path(self.target) if self.target else f"video {self.video_id}"
        return f"{name if self.label == self.video_id else self.label}: {self.message}"

    @property
    def rendered(self) -> bool:
        """Whether the render has ended."""
        return self.snapshot is not None and self.snapshot.is_terminal

    @property
    def done(self) -> bool:
        """Whether the command has nothing left to do for it."""
        return bool(self.path) or (self.rendered and (self.failed or self.target is None))


@frozen
class Activity:
    """What the command is doing, for as long as there is nothing else to show."""

    text: str


@frozen
class Info:
    """Lines for people."""

    lines: tuple[str, ...]


@frozen
class Warned:
    """A warning."""

    text: str


@frozen
class VideoExpected:
    """The command tracks a video that it has no snapshot of yet."""

    video: TrackedVideo


@frozen
class VideoSubmitted:
    """The server accepted a video."""

    video: TrackedVideo


@frozen
class VideoChanged:
    """The status of a video changed; its render may have failed."""

    video: TrackedVideo


@frozen
class VideoDownloading:
    """More of a video's file, or of its mask, was downloaded."""

    video: TrackedVideo


@frozen
class VideoSaved:
    """A video was saved."""

    video: TrackedVideo


@frozen
class VideoShown:
    """The user asked for the snapshot of a video."""

    video: TrackedVideo


@frozen
class Previews:
    """The pictures of characters or poses, by their ids.

    Attributes:
        urls: Their URLs, unless they end with the command.
        paths: The files that they were saved to.
        shown: The pictures to show in the terminal.
    """

    urls: Mapping[str, str]
    paths: Mapping[str, Path]
    shown: Mapping[str, Picture]

    def place(self, name: str) -> str:
        """Return the path or the URL of a picture; empty if it has neither."""
        return shown_path(self.paths[name]) if name in self.paths else self.urls.get(name, "")

    def to_json(self, name: str) -> dict[str, str]:
        """Return what the JSON of a character or pose has instead of, and besides, what the server sent."""
        url = {} if self.urls else {"preview_url": ""}
        return url | ({"preview_path": str(self.paths[name].absolute())} if name in self.paths else {})


@frozen
class CharactersListed:
    """The characters of the server."""

    characters: Sequence[Character]
    previews: Previews


@frozen
class AvatarsListed:
    """The avatars of the server."""

    avatars: Sequence[Avatar]
    previews: Previews


@frozen
class VoicesListed:
    """The voices of the server. The URLs of a local engine end with the command."""

    voices: Sequence[Voice]
    has_urls: bool


@frozen
class VideosListed:
    """The videos of the account. The URLs of a local engine end with the command."""

    videos: Sequence[Video]
    has_urls: bool


@frozen
class RequestsPaced:
    """How the requests of a command that follows videos are paced."""

    pace: Pace


@frozen
class BatchProgress:
    """The progress of a running batch, and how its requests are paced.

    Attributes:
        progress: The number of jobs at each stage.
        pace: The pace of the client's requests.
        downloads: By path, the number of bytes downloaded so far and the size of the file, if known.
    """

    progress: Progress
    pace: Pace
    downloads: Mapping[Path, tuple[int, int | None]] = field(factory=dict)


@frozen
class JobEnded:
    """A job of a batch ended."""

    job: JobStatus


@frozen
class BatchSummary:
    """A batch ended.

    Attributes:
        counts: The number of jobs in each stage.
        earlier: The number of jobs that earlier runs had done.
        seconds: The duration of this run.
        folder: The folder of the videos.
        report: The report, if one was written.
    """

    counts: Counter[str]
    earlier: int
    seconds: float
    folder: Path
    report: Path | None


@frozen
class DryRunPlan:
    """The plan of a dry run.

    Attributes:
        counts: The number of jobs in each stage now; ``None`` if the batch would not begin.
        submissions: The number of videos that a run would submit.
        refusals: For each job that a run would refuse, the job and the reason.
        speeches: The number of texts that a run would have synthesized.
    """

    counts: Counter[str] | None
    submissions: int
    refusals: Sequence[str] = ()
    speeches: int = 0


@frozen
class JournalListed:
    """The jobs of a journal."""

    jobs: Sequence[JobStatus]


@frozen
class EngineReady:
    """An engine accepts requests.

    Attributes:
        base_url: Its URL.
        token: The token that clients must send.
        is_secret: Whether the user set the token, so that it is not shown.
        is_kept: Whether videos outlive the engine.
    """

    base_url: str
    token: Secret
    is_secret: bool
    is_kept: bool


@frozen
class ChecksCompleted:
    """The checks of ``a2v doctor``."""

    checks: Sequence[Check]


Event: TypeAlias = (
    Activity
    | Info
    | Warned
    | VideoExpected
    | VideoSubmitted
    | VideoChanged
    | VideoDownloading
    | VideoSaved
    | VideoShown
    | CharactersListed
    | AvatarsListed
    | VideosListed
    | VoicesListed
    | RequestsPaced
    | BatchProgress
    | JobEnded
    | BatchSummary
    | DryRunPlan
    | JournalListed
    | EngineReady
    | ChecksCompleted
)


class EventStream:
    """Passes a command's events to its renderer, and knows the current activity.

    Args:
        render: Renders one event.
        activity: What the command does first.
    """

    def __init__(self, render: Callable[[Event], object], activity: str) -> None:
        self._render = render
        self._activities = [activity]
        self.emit(Activity(activity))

    @property
    def current_activity(self) -> str:
        """What the command is doing."""
        return self._activities[-1]

    def emit(self, event: Event) -> None:
        """Render an event."""
        self._render(event)

    @contextmanager
    def activity(self, text: str) -> Iterator[None]:
        """Show an activity for the length of the block. Blocks of several tasks may overlap."""
        self._activities.append(text)
        self.emit(Activity(text))
        try:
            yield
        finally:
            self._activities.remove(text)
            self.emit(Activity(self.current_activity))
