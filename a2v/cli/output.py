"""What the commands print: progress on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import asdict, define, field
from rich.console import Console, Group, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from a2v import Avatar, Character, Video, VideoStatus
from a2v._core import wire
from a2v._core.settings import is_loopback
from a2v.cli.printing import (
    JsonPrinter,
    Printer,
    TerminalPrinter,
    clean,
    open_terminal,
    print_fields,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from a2v._core.settings import Secret
    from a2v.cli.doctor import Check


@define
class Row:
    """A video, and what the command wants of it.

    Attributes:
        video_id: Which.
        label: What to call it on a terminal.
        target: Where it shall be saved, if it shall.
        mask_target: Where its mask shall be saved, if it shall.
        video: The last look at it.
        path: Where it was saved.
        mask_path: Where its mask was saved.
        since: When the command first heard of it, on the monotonic clock.
    """

    video_id: str
    label: str
    target: Path | None = None
    video: Video | None = None
    path: Path | None = None
    mask_target: Path | None = None
    mask_path: Path | None = None
    since: float = field(factory=time.monotonic)

    @property
    def word(self) -> str:
        """The wire's word for where it is, or ``saved``."""
        if self.path:
            return "saved"
        if self.video is None:
            return "?"
        # A word that this version does not know is kept as it was sent.
        sent = self.video.raw.get("status") if self.video.status is VideoStatus.UNKNOWN else None
        return clean(sent or self.video.status.value)

    @property
    def detail(self) -> str:
        """Where the video is, or why it is not."""
        if self.path or self.video is None:
            return clean(self.path or "")
        if self.video.status is VideoStatus.FAILED:
            return clean(_message(self.video) or "the server gave no reason")
        return clean(self.video.video_url or "") if self.target is None else ""

    @property
    def ended(self) -> bool:
        """Whether the command wants nothing more of it."""
        if self.video is None or self.path:
            return bool(self.path)
        return self.video.is_terminal and (self.video.status is VideoStatus.FAILED or self.target is None)


def _message(video: Video) -> str | None:
    message = video.raw.get("message")
    return message if isinstance(message, str) and message else None


class Output(Printer):
    """Where a command tells what it learns; plain lines of tab-separated fields, for pipes and logs."""

    def __init__(self, note: str = "") -> None:
        super().__init__(note)
        self.rows: dict[str, Row] = {}
        self.submitting = 0
        self.in_doubt = 0  # submissions that ended after they were sent, and before they were answered

    def expect(
        self, video_id: str, *, label: str = "", target: Path | None = None, mask_target: Path | None = None
    ) -> None:
        """A video that the command is about."""
        self.rows.setdefault(video_id, Row(video_id, label or video_id, target, mask_target=mask_target))

    def show(self, video: Video) -> None:
        """A look at a video; printed if it is news."""
        self.expect(video.video_id)
        row = self.rows[video.video_id]
        before, row.video = row.video and row.word, video
        if row.word != before:
            self.row(row)

    def answer(self, video: Video) -> None:
        """A look at a video that was asked for as such."""
        self.show(video)

    def saved(self, video_id: str, path: Path) -> None:
        """A video that is on disk now."""
        self.rows[video_id].path = path.absolute()
        self.row(self.rows[video_id])

    def row(self, row: Row) -> None:
        """Print where a video is now."""
        label = row.label if row.label != row.video_id else ""
        print_fields(row.video_id, row.word, row.detail or label, str(row.mask_path or ""))

    def characters(self, characters: Iterable[Character]) -> None:
        """Print who can speak."""
        for one in characters:
            print_fields(*_speaker(one))

    def avatars(self, avatars: Iterable[Avatar]) -> None:
        """Print who can speak in which poses, a line for each pose."""
        for fields in _poses(avatars):
            print_fields(*fields)


def _speaker(one: Character) -> tuple[str, ...]:
    return one.model_id, one.display_name or one.name, one.gender, one.preview_url


def _poses(avatars: Iterable[Avatar]) -> Iterator[tuple[str, ...]]:
    for one in avatars:
        for pose in one.poses:
            name = one.display_name or one.name
            yield pose.pose_id, name, pose.name, one.gender, pose.preview_url or one.preview_url


class JsonOutput(JsonPrinter, Output):
    """JSON Lines: a line is a video each time its status changes. ``characters`` are one array."""

    def row(self, row: Row) -> None:
        """Print a video as an object."""
        if row.video:
            video = row.video
            print_json(
                {
                    "video_id": row.video_id,
                    "status": video.raw.get("status") if video.status is VideoStatus.UNKNOWN else video.status.value,
                    "video_url": video.video_url,
                    "mask_video_url": video.mask_video_url,
                    "message": _message(video),
                    "path": str(row.path) if row.path else None,
                    "mask_path": str(row.mask_path) if row.mask_path else None,
                }
            )

    def characters(self, characters: Iterable[Character]) -> None:
        """Print who can speak, as an array of objects."""
        keys = ("model_id", "name", "display_name", "gender", "preview_url")
        print_json([{key: getattr(one, key) for key in keys} for one in characters])

    def avatars(self, avatars: Iterable[Avatar]) -> None:
        """Print who can speak in which poses, as the server tells it: an array of objects."""
        print_json([wire.avatar_data(one) for one in avatars])


class TerminalOutput(TerminalPrinter, Output):
    """What is under way moves at the bottom; what has ended stands above it."""

    def __init__(self, console: Console, note: str) -> None:
        self._spinner = Spinner("dots")
        super().__init__(console, note, per_second=8)

    def answer(self, video: Video) -> None:
        """Print a video, on its way or not."""
        self._print_row(Row(video.video_id, video.video_id, video=video))

    def row(self, row: Row) -> None:
        """Print a video that has ended; the others are moving already."""
        if row.ended:
            self._print_row(row)

    def characters(self, characters: Iterable[Character]) -> None:
        """Print who can speak, as a table."""
        print_table(self._console, ("model_id", "name", "gender", "preview"), map(_speaker, characters))

    def avatars(self, avatars: Iterable[Avatar]) -> None:
        """Print who can speak in which poses, as a table."""
        print_table(self._console, ("pose_id", "name", "pose", "gender", "preview"), _poses(avatars))

    def _print_row(self, row: Row) -> None:
        failed = row.video and row.video.status is VideoStatus.FAILED
        sign = ("✗ ", "red") if failed else ("✓ ", "green") if row.ended else ("· ", "dim")
        where = f"  {row.word}  {row.detail}" + (f"  {clean(row.mask_path)}" if row.mask_path else "")
        self.write(Text.assemble(sign, (clean(row.label), "bold"), where.rstrip()))

    def moving(self) -> RenderableType:
        """The videos under way."""
        moving = [row for row in list(self.rows.values()) if not row.ended]
        if not moving:
            return Group(self._line(clean(self.note))) if not self.rows else Text("")
        room = max(1, self._console.height - 3)
        table = Table.grid(padding=(0, 2, 0, 0))
        for row in moving[:room]:
            seconds = int(time.monotonic() - row.since)
            word = "fetching" if row.video and row.video.is_terminal else row.word
            table.add_row(self._spinner, Text(clean(row.label), "bold"), Text(word), Text(f"{seconds} s", "dim"))
        more = len(moving) - room
        return Group(table, Text(f"… and {more} more under way", "dim")) if more > 0 else table

    def _line(self, text: str) -> RenderableType:
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(self._spinner, Text(text, "dim"))
        return line


def open_output(*, as_json: bool, note: str) -> Output:
    """The output that fits where stdout goes.

    Args:
        as_json: Whether a machine reads.
        note: What a terminal shows until there is something to show.
    """
    if as_json:
        return JsonOutput(note)
    console = open_terminal()
    return TerminalOutput(console, note) if console else Output(note)


def announce(base_url: str, *, token: Secret, is_secret: bool, is_kept: bool, as_json: bool) -> None:
    """Tell that an engine is ready, and how to use it.

    Args:
        base_url: Where it is.
        token: What clients must send.
        is_secret: Whether the user knows the token already, so that it need not be shown.
        is_kept: Whether the videos outlive the engine.
        as_json: Whether a machine reads.
    """
    if as_json:
        print_json({"base_url": base_url, "token": None if is_secret else token.value})
        return
    shown = "…" if is_secret else token.value
    usage = [
        "To use it from another terminal:",
        f"  export A2V_BASE_URL={base_url} A2V_TOKEN={shown}",
        "  a2v characters",
    ]
    if not is_loopback(urlsplit(base_url).hostname or ""):
        usage = [
            "a2v sends a token over plain HTTP to its own machine only: put a proxy with TLS in front of the engine, and use",
            f"  export A2V_BASE_URL=https://… A2V_TOKEN={shown}",
        ]
    print(
        f"The engine is ready at {base_url} (also a page to look at). Ctrl-C stops it.",
        *([] if is_kept else ["Its videos will be gone then; --data-dir DIR keeps them."]),
        *usage,
        sep="\n",
        flush=True,
    )


def print_checks(checks: Iterable[Check], *, as_json: bool) -> None:
    """Print what ``a2v doctor`` found."""
    found = list(checks)
    if as_json:
        all_well = not any(check.state == "problem" for check in found)
        print_json({"ok": all_well, "checks": [asdict(check) for check in found]})
        return
    width = max(len(check.name) for check in found)
    for check in found:
        print(f"{check.state:<8}  {clean(check.name):<{width}}  {clean(check.words)}", flush=True)
