"""The three renderers of a command's events: a live display for terminals, plain lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from itertools import islice
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from attrs import asdict, evolve
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from a2v import VideoStatus
from a2v._core import wire
from a2v._core.settings import is_loopback
from a2v.cli.events import (
    Activity,
    AvatarsListed,
    BatchProgress,
    BatchSummary,
    CharactersListed,
    ChecksCompleted,
    DryRunPlan,
    EngineReady,
    Event,
    Info,
    JobEnded,
    JournalListed,
    RequestsPaced,
    TrackedVideo,
    VideoChanged,
    VideoDownloading,
    VideoExpected,
    VideoSaved,
    VideoShown,
    VideosListed,
    VideoSubmitted,
    VoicesListed,
    Warned,
)
from a2v.cli.job_status import count_stages, format_counts
from a2v.cli.terminal import clean, duration, eprint, plural, program, shown_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from a2v import Avatar, Character, Pace, Progress, Video, Voice
    from a2v.cli.events import Previews
    from a2v.cli.job_status import JobStatus

_REFRESH_PER_SECOND = 8
_MAX_DOWNLOADS = 4  # lines; a batch downloads a few files at a time
_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
_STEPS = ("done", "rendering", "queued")  # always shown, so that the display does not jump
_SOON = 2.0  # seconds until the next request that are worth mentioning
_OUTAGE = 5.0  # seconds without a successful request; shorter failures are retried before anyone could react


class Renderer(ABC):
    """Turns events into output. A renderer with a display shows it for the length of a ``with`` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027  # only a display has to be removed
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    @abstractmethod
    def render(self, event: Event) -> None:
        """Print an event, show it, or ignore it."""


def open_renderer(*, as_json: bool) -> Renderer:
    """Choose the renderer: JSON if asked for, the live display if stdout is a terminal, plain lines otherwise."""
    if as_json:
        return JsonRenderer()
    console = Console(highlight=False, markup=False, emoji=False)
    return TerminalRenderer(console) if console.is_terminal and not console.is_dumb_terminal else PlainRenderer()


class JsonRenderer(Renderer):
    """JSON for programs: a single document, or one line per change for commands that follow videos or jobs."""

    def render(self, event: Event) -> None:  # noqa: C901  # one case per event
        """Print an event that carries data; messages for people are left out."""
        match event:
            case VideoSubmitted(video) | VideoChanged(video) | VideoSaved(video) | VideoShown(video):
                self._print(_video_json(video))
            case CharactersListed(characters, previews):
                self._print([_character_json(one, previews) for one in characters])
            case AvatarsListed(avatars, previews):
                self._print([_avatar_json(one, previews) for one in avatars])
            case VoicesListed(voices, has_urls):
                self._print([wire.voice_data(_listed_voice(voice, has_url=has_urls)) for voice in voices])
            case VideosListed(videos, has_urls):
                self._print([_video_json(_listed(video, has_url=has_urls)) for video in videos])
            case JobEnded(job):
                self._print(job.to_json())
            case JournalListed(jobs):
                left_out = ("row", "extra")
                self._print(
                    [{key: value for key, value in job.to_json().items() if key not in left_out} for job in jobs]
                )
            case DryRunPlan(counts, submissions, refusals, speeches):
                stages = None if counts is None else dict(counts)
                plan = {"jobs": stages, "submissions": submissions, "speeches": speeches, "refusals": list(refusals)}
                self._print(plan)
            case EngineReady(base_url, token, is_secret):
                self._print({"base_url": base_url, "token": None if is_secret else token.value})
            case ChecksCompleted(checks):
                all_well = not any(check.state == "problem" for check in checks)
                self._print({"ok": all_well, "checks": [asdict(check) for check in checks]})
            case Warned(text):
                eprint(f"a2v: {text}", colour="yellow")
            case _:
                pass

    def _print(self, value: object) -> None:
        # ASCII only, so that no escape sequence reaches a terminal.
        print(json.dumps(value), flush=True)


class PlainRenderer(Renderer):
    """Lines of tab-separated fields, for pipes and logs."""

    def render(self, event: Event) -> None:  # noqa: C901, PLR0912  # one case per event
        """Print an event, unless it only matters on a display."""
        match event:
            case VideoSubmitted(video) | VideoChanged(video) | VideoSaved(video) | VideoShown(video):
                label = video.label if video.label != video.video_id else ""
                _print_fields(video.video_id, _status_word(video), _detail(video) or label, video.mask_path or "")
            case CharactersListed(characters, previews):
                for fields in _character_fields(characters, previews):
                    _print_fields(*fields)
            case AvatarsListed(avatars, previews):
                for fields in _pose_fields(avatars, previews):
                    _print_fields(*fields)
            case VoicesListed(voices, has_urls):
                for voice in voices:
                    _print_fields(*_voice_fields(_listed_voice(voice, has_url=has_urls)))
            case VideosListed(videos, has_urls):
                for video in (_listed(video, has_url=has_urls) for video in videos):
                    _print_fields(video.video_id, _status_word(video), _detail(video))
            case JobEnded(job):
                _print_fields("-" if job.row is None else job.row, job.name, job.state, job.video_id or "", job.detail)
            case JournalListed(jobs):
                for job in jobs:
                    _print_fields(job.name, job.state, job.video_id or "", job.detail)
                eprint(_journal_summary(jobs))
            case Warned(text):
                eprint(f"a2v: {text}", colour="yellow")
            case _:
                for line in _shared_lines(event):
                    print(clean(line), flush=True)


class TerminalRenderer(Renderer):
    """A live display: unfinished videos, or the counts of a batch, are updated at the bottom; results scroll above them.

    Rich redraws the display from a thread of its own, so ``_display`` copies what it iterates over.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._activity = ""
        self._videos: dict[str, TrackedVideo] = {}
        self._pace: Pace | None = None
        self._batch: _BatchDisplay | None = None
        self._spinner = Spinner("dots")
        self._live = Live(
            console=console,
            get_renderable=self._display,
            transient=True,
            # Lines for this terminal are printed above the display; those for a file go there.
            redirect_stderr=sys.stderr.isatty(),
            refresh_per_second=_REFRESH_PER_SECOND,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def render(self, event: Event) -> None:  # noqa: C901, PLR0912  # one case per event
        """Update the display, and print a result above it."""
        match event:
            case Activity(text):
                self._activity = text
            case VideoExpected(video) | VideoDownloading(video):
                self._videos[video.video_id] = video
            case VideoSubmitted(video) | VideoChanged(video) | VideoSaved(video):
                self._videos[video.video_id] = video
                if video.done:
                    # The display is drawn again below the line, as it was at its last refresh.
                    self._live.refresh()
                    self._print_video(video)
            case VideoShown(video):
                self._print_video(video)
            case CharactersListed(characters, previews):
                rows = list(_character_fields(characters, previews))
                self._print_table(("model_id", "name", "gender", "preview"), rows, previews)
            case AvatarsListed(avatars, previews):
                rows = list(_pose_fields(avatars, previews))
                self._print_table(("pose_id", "name", "pose", "gender", "preview"), rows, previews)
            case VoicesListed(voices, has_urls):
                rows = [_voice_fields(_listed_voice(voice, has_url=has_urls)) for voice in voices]
                self._print_table(("voice_name", "gender", "language", "tags", "sample"), rows)
            case VideosListed(videos, has_urls):
                listed = [_listed(video, has_url=has_urls) for video in videos]
                rows = [(video.video_id, _plain_status(video), _detail(video)) for video in listed]
                self._print_table(("video_id", "status", "video or reason"), rows)
            case RequestsPaced(pace):
                self._pace = pace
            case BatchProgress():
                self._batch = self._batch or _BatchDisplay(event)
                self._batch.latest = event
            case JobEnded(job):
                sign = ("✓ ", "green") if job.state == "done" else ("✗ ", "red")
                self._live.refresh()  # as above
                self._print(Text.assemble(sign, (clean(job.name), "bold"), f"  {job.state}  {clean(_relative(job))}"))
            case JournalListed(jobs):
                rows = [(job.name, job.state, job.video_id or "", _relative(job)) for job in jobs]
                self._print_table(("job", "state", "video_id", "path or error"), rows)
                eprint(_journal_summary(jobs))
            case ChecksCompleted(checks):
                table = Table.grid(padding=(0, 2, 0, 0))
                for check in checks:
                    table.add_row(
                        Text(check.state, _COLOURS[check.state]), Text(clean(check.name)), Text(clean(check.words))
                    )
                self._console.print(table)
            case Warned(text):
                eprint(f"a2v: {text}", colour="yellow")
            case _:
                for line in _shared_lines(event):
                    self._print(Text(clean(line)))

    def _print(self, text: Text) -> None:
        # Let the terminal wrap long lines, so that a copied path or URL has no line breaks.
        text.rstrip()
        self._console.print(text, soft_wrap=True)

    def _print_table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], previews: Previews | None = None
    ) -> None:
        """Print a table. The terminal wraps its lines, so that a copied URL or path has no line breaks.

        Args:
            columns: The headers.
            rows: The cells. Columns at the end that are empty in all rows are left out.
            previews: Pictures, by the first cell of each row.
        """
        table = [list(columns), *(list(map(clean, row)) for row in rows)]
        while table[0] and not any(row[-1] for row in table[1:]):
            table = [row[:-1] for row in table]
        widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
        for number, row in enumerate(table):
            padded = "  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True))
            self._print(Text(padded, "" if number else "bold"))
            if number and previews and (picture := previews.shown.get(rows[number - 1][0])):
                # Not through the console, which does not know these escape sequences.
                self._console.file.write(f"{picture.escape_sequence()}\n")
        if previews and not (previews.urls or previews.paths or previews.shown):
            self._print(Text("Add --save DIR to see their pictures.", "dim"))

    def _print_video(self, video: TrackedVideo) -> None:
        sign = ("✗ ", "red") if video.failed else ("✓ ", "green") if video.done else ("· ", "dim")
        others = "".join(f"  {clean(shown_path(path))}" for path in video.saved_beside.values())
        detail = shown_path(video.path) if video.path else _detail(video)
        self._print(
            Text.assemble(sign, (clean(video.label), "bold"), f"  {_plain_status(video)}  {clean(detail)}{others}")
        )

    def _display(self) -> RenderableType:
        if self._batch:
            return self._batch.table(self._console.width)
        unfinished = [video for video in list(self._videos.values()) if not video.done]
        if self._videos and not unfinished:
            return Text("")
        lines: list[RenderableType] = [self._video_table(unfinished) if unfinished else self._activity_line()]
        if self._pace and (outage := _outage(self._pace)):
            lines.append(Text(outage, "dim"))
        return Group(*lines)

    def _activity_line(self) -> RenderableType:
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(self._spinner, Text(clean(self._activity), "dim"))
        return line

    def _video_table(self, videos: list[TrackedVideo]) -> RenderableType:
        room = max(1, self._console.height - 3)
        table = Table.grid(padding=(0, 2, 0, 0))
        for video in videos[:room]:
            seconds = int(time.monotonic() - video.since)
            status = _download_progress(video.received, video.size) if video.rendered else _plain_status(video)
            table.add_row(self._spinner, Text(clean(video.label), "bold"), Text(status), Text(f"{seconds} s", "dim"))
        more = len(videos) - room
        return Group(table, Text(f"… and {more} more in progress", "dim")) if more > 0 else table


class _BatchDisplay:
    """The moving part of a batch: a bar, the counts, and an estimate of the time left."""

    def __init__(self, first: BatchProgress) -> None:
        self.latest = first
        self._since = time.monotonic()
        self._ended_before = _ended(first.progress)

    def table(self, width: int) -> RenderableType:
        """Return the display for a terminal of this width."""
        progress = self.latest.progress
        stages = (
            ("done", progress.done, "green"),
            ("failed", progress.failed, "red"),
            ("lost", progress.lost, "red"),
            ("unknown", progress.unknown, "yellow"),
            ("downloading", progress.saving, ""),
            ("rendering", progress.rendering, ""),
            ("queued", progress.under_way - progress.rendering - progress.saving, ""),
            ("not submitted", progress.waiting, "dim"),
        )
        shown = [Text(f"{name} {count}", style) for name, count, style in stages if count or name in _STEPS]
        counts = _lines_of(shown, width)
        ended = _ended(progress)
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_row(
            ProgressBar(total=max(1, progress.total), completed=ended, width=min(40, width - 20)),
            f"{ended} of {progress.total}",
        )
        times = Text(" · ".join(self._times(ended, progress.total)), "dim")
        return Group(bar, *counts, *self._downloads(), times)

    def _downloads(self) -> Iterator[RenderableType]:
        downloads = self.latest.downloads
        if downloads:
            table = Table.grid(padding=(0, 2, 0, 0))
            for path, (received, size) in islice(downloads.items(), _MAX_DOWNLOADS):
                table.add_row(Text(clean(path.name), "bold"), _download_progress(received, size))
            yield table
        if len(downloads) > _MAX_DOWNLOADS:
            yield Text(f"… and {plural(len(downloads) - _MAX_DOWNLOADS, 'more download')}", "dim")

    def _times(self, ended: int, total: int) -> Iterator[str]:
        passed = time.monotonic() - self._since
        yield f"elapsed {duration(passed)}"
        ended_now, pace = ended - self._ended_before, self.latest.pace
        if outage := _outage(pace):
            # During an outage an estimate would only grow.
            yield outage
        elif ended_now and total > ended:
            yield f"about {duration(passed / ended_now * (total - ended))} to go"
        if pace.left is not None:
            yield f"{pace.left} of this minute's {pace.limit} requests left"
        if pace.next_in is not None and pace.next_in >= _SOON:
            yield f"next request in {duration(pace.next_in)}"


def _outage(pace: Pace) -> str | None:
    if pace.failing_for is None or pace.failing_for < _OUTAGE:
        return None
    return f"no request has succeeded for {duration(pace.failing_for)}, retrying"


def _lines_of(texts: Iterable[Text], width: int) -> list[Text]:
    """Distribute short texts over as few lines as possible, without line breaks in them."""
    lines = [Text()]
    for text in texts:
        if lines[-1] and lines[-1].cell_len + text.cell_len + 3 > width:
            lines.append(Text())
        lines[-1] = Text("   ").join([lines[-1], text]) if lines[-1] else text
    return lines


def _ended(progress: Progress) -> int:
    return progress.done + progress.failed + progress.lost + progress.unknown


def _print_fields(*fields: object) -> None:
    print("\t".join(map(clean, fields)).rstrip("\t"), flush=True)


def _status_word(video: TrackedVideo) -> str:
    return "saved" if video.path else clean(video.status or "?")


def _plain_status(video: TrackedVideo) -> str:
    """Return the status in words for people."""
    words = {VideoStatus.PENDING: "queued", VideoStatus.IN_PROGRESS: "rendering", VideoStatus.FAILED: "failed"}
    status = video.snapshot.status if video.snapshot else VideoStatus.UNKNOWN
    return _status_word(video) if video.path else words.get(status, _status_word(video))


def _relative(job: JobStatus) -> str:
    """Return the error, or else the path of the video, relative to the current folder."""
    return job.error or (shown_path(job.path) if job.path else "")


def _download_progress(received: int, size: int | None) -> str:
    if not received:
        return "downloading"
    return f"downloading {100 * received // size} % of {decimal(size)}" if size else f"downloading {decimal(received)}"


def _detail(video: TrackedVideo) -> str:
    """The path or the URL of a video, or the reason of its failure."""
    if video.path:
        return str(video.path)
    if video.failed:
        return video.message or "the server gave no reason"
    return (video.snapshot.video_url if video.snapshot and video.target is None else None) or ""


def _video_json(video: TrackedVideo) -> dict[str, Any]:
    return {
        "video_id": video.video_id,
        "status": video.status,
        "video_url": video.snapshot.video_url if video.snapshot else None,
        "mask_video_url": video.snapshot.mask_video_url if video.snapshot else None,
        "captions_url": video.snapshot.captions_url if video.snapshot else None,
        "message": video.message,
        "path": str(video.path) if video.path else None,
        "mask_path": str(video.mask_path) if video.mask_path else None,
        "captions_paths": list(map(str, video.captions_paths)),
    }


def _character_json(character: Character, previews: Previews) -> dict[str, Any]:
    return dict(wire.character_data(character)) | previews.to_json(character.model_id)


def _avatar_json(avatar: Avatar, previews: Previews) -> dict[str, Any]:
    poses = [dict(wire.pose_data(pose)) | previews.to_json(pose.pose_id) for pose in avatar.poses]
    return dict(wire.avatar_data(avatar)) | previews.to_json(avatar.avatar_id) | {"poses": poses}


def _character_fields(characters: Iterable[Character], previews: Previews) -> Iterator[tuple[str, ...]]:
    for one in characters:
        yield one.model_id, one.display_name or one.name, one.gender, previews.place(one.model_id)


def _listed(video: Video, *, has_url: bool) -> TrackedVideo:
    return TrackedVideo(
        video.video_id,
        video.video_id,
        snapshot=video if has_url else evolve(video, video_url=None, mask_video_url=None, captions_url=None),
    )


def _listed_voice(voice: Voice, *, has_url: bool) -> Voice:
    return voice if has_url else evolve(voice, preview_url="")


def _voice_fields(voice: Voice) -> tuple[str, ...]:
    return voice.voice_name, voice.gender, voice.locale or voice.language, ", ".join(voice.tags), voice.preview_url


def _pose_fields(avatars: Iterable[Avatar], previews: Previews) -> Iterator[tuple[str, ...]]:
    for avatar in avatars:
        for pose in avatar.poses:
            name = avatar.display_name or avatar.name
            yield pose.pose_id, name, pose.name, avatar.gender, previews.place(pose.pose_id)


def _summary(batch: BatchSummary) -> Iterator[str]:
    yield format_counts(batch.counts)
    if batch.earlier:
        yield f"{batch.earlier} of them by earlier runs"
    yield duration(batch.seconds)
    if batch.counts["done"]:
        yield f"videos in {shown_path(batch.folder)}"
    if batch.report:
        yield f"report in {shown_path(batch.report)}"


def _journal_summary(jobs: Sequence[JobStatus]) -> str:
    return f"{plural(len(jobs), 'job')}: {format_counts(count_stages(job.state for job in jobs))}"


def _shared_lines(event: Event) -> Iterator[str]:
    """The lines for people that are the same on terminals and in pipes."""
    match event:
        case Info(lines):
            yield from lines
        case BatchSummary():
            yield " · ".join(_summary(event))
        case DryRunPlan(counts, submissions, refusals, speeches):
            if counts is not None:
                yield f"{plural(counts.total(), 'job')}: {format_counts(counts)}"
            texts = f" and have {plural(speeches, 'text')} synthesized" if speeches else ""
            yield f"A run would submit {plural(submissions, 'video')}{texts}."
            yield from refusals
        case EngineReady(base_url, token, is_secret, is_kept):
            shown = "…" if is_secret else token.value
            yield f"The engine is ready at {base_url} (Ctrl-C stops it)"
            yield "Open that URL in a browser to make and watch videos."
            if not is_kept:
                yield "Its videos are deleted when it stops; --data-dir DIR keeps them."
            parts = urlsplit(base_url)
            if parts.scheme == "https" or is_loopback(parts.hostname or ""):
                yield "To use it from another terminal:"
                yield f"  export A2V_BASE_URL={base_url} A2V_TOKEN={shown}"
                yield f"  {program()} characters"
            else:
                yield "It has no TLS, so anyone in the network can read its token: add --tls-cert and --tls-key, or put a proxy"
                yield "with TLS in front of it. In a private network that you trust, clients can use it as it is:"
                yield f"  export A2V_BASE_URL={base_url} A2V_TOKEN={shown}"
                yield f"  {program()} characters --insecure"
        case ChecksCompleted(checks):
            width = max(len(check.name) for check in checks)
            for check in checks:
                yield f"{check.state:<8}  {clean(check.name):<{width}}  {check.words}"
        case _:
            pass
