"""What a batch begins with: its jobs, what the journal knows of them, and what the caller chose to do about that."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import frozen

from a2v._async.download import Destination, on_disk
from a2v._async.item import Item
from a2v._async.saver import is_saved, kept_paths
from a2v._core.items import JobState, JournalEntry, identities, restored
from a2v._core.models import Job, Video, VideoStatus
from a2v.errors import ConfigurationError, JournalError, VideoFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from a2v._async.journal import Journal, Row

Pairs = list[tuple[Item, "Row"]]


@frozen(kw_only=True)
class Choices:
    """What the caller chose, as ``AsyncA2V.batch`` explains it."""

    overwrite: bool
    limit: int | None
    quota: int | None
    resubmit_unknown: bool | Collection[int]
    resubmit_failed: bool
    repeat: bool


@frozen
class Intake:
    """What a batch begins with.

    Attributes:
        items: Its jobs; with those that are ``ended`` this run has nothing to do.
        endings: The items of which an earlier run has seen the end and this one shall tell, with the facts of an ``Outcome``.
        gone: What the journal has besides.
        video_ids: All videos that the journal knows.
    """

    items: list[Item]
    endings: list[tuple[Item, dict[str, Any]]]
    gone: tuple[JournalEntry, ...]
    video_ids: set[str]


async def take_in(journal: Journal, jobs: list[Job], places: list[Path | None], choices: Choices) -> Intake:
    """Put a batch's jobs beside what the journal knows of them. Nothing is sent.

    Args:
        journal: The batch's memory.
        jobs: What it asks for.
        places: Where each video would go if this was the first run.
        choices: What the caller chose.

    Raises:
        JournalError: The journal cannot be used.
        DownloadError: A video could not be saved.
        ConfigurationError: The quota does not suffice.
    """
    rows = await journal.do(partial(journal.take, dict(zip(identities(jobs), jobs, strict=True))))
    gone = tuple(await journal.do(journal.gone))
    known: list[Row | JournalEntry] = [*rows, *gone]
    taken = {one.path for one in known if one.path}
    paths = kept_paths(jobs, places, [row.path for row in rows], taken)
    pairs = [
        (Item(index, job, row.identity, path, row.state, row.video_id), row)
        for index, (job, path, row) in enumerate(zip(jobs, paths, rows, strict=True))
    ]
    if any(places):
        await _check_files(journal, pairs, overwrite=choices.overwrite)
    items = [item for item, _ in pairs]
    await _choose_again(journal, items, choices)
    _limit(items, choices)
    ended = [(item, row) for item, row in pairs if item.state.is_terminal]
    for item, row in ended:
        item.ended = row.reported and not choices.repeat
    return Intake(
        items,
        [(item, _ending(item, row)) for item, row in ended if not item.ended],
        gone,
        {one.video_id for one in known if one.video_id},
    )


def refuse_a_lost_journal(journal: Path, places: list[Path | None]) -> None:
    """Without it, what was paid for already would be paid for again.

    Raises:
        JournalError: It is not there, and videos that it must have known are.
    """
    saved = [] if journal.exists() else [path for path in places if path and path.exists()]
    if saved:
        raise JournalError(
            f"there is no journal {journal}, but {len(saved)} of this batch's videos are there already, such as "
            f"{saved[0]}: name the right journal, or pass overwrite=True to make them anew"
        )


async def _check_files(journal: Journal, pairs: Pairs, *, overwrite: bool) -> None:
    """Find out before anything is sent which videos are not there any more, and whether the others can be saved."""
    done = [(item, row) for item, row in pairs if item.state is JobState.DONE]
    missing = await on_disk(lambda: [item for item, row in done if item.path and not is_saved(item.path, row)])
    for item in missing:
        await item.move(journal, JobState.FINISHED, path=None, etag=None, size=None, sha256=None)
    await on_disk(partial(_check_places, pairs, overwrite=overwrite))


def _check_places(pairs: Pairs, *, overwrite: bool) -> None:
    for item, row in pairs:
        if item.path and not item.state.is_terminal and not (row.sha256 and is_saved(item.path, row)):
            Destination(item.path, overwrite).prepare()
        if item.mask_path and item.state is JobState.PENDING:
            Destination(item.mask_path, overwrite).prepare()


async def _choose_again(journal: Journal, items: list[Item], choices: Choices) -> None:
    """What the caller chose to submit once more."""
    chosen = choices.resubmit_unknown
    for item in items:
        unknown = chosen is True or (not isinstance(chosen, bool) and item.index in chosen)
        if (item.state is JobState.UNKNOWN and unknown) or (
            item.state in (JobState.FAILED, JobState.REJECTED) and choices.resubmit_failed
        ):
            await item.move(journal, JobState.PENDING, video_id=None, etag=None, size=None, sha256=None)


def _limit(items: list[Item], choices: Choices) -> None:
    """Leave to a later run what is too much for this one."""
    pending = [item for item in items if item.state is JobState.PENDING]
    wanted = pending if choices.limit is None else pending[: choices.limit]
    if choices.quota is not None and len(wanted) > choices.quota:
        raise ConfigurationError(
            f"this batch would submit {len(wanted)}, and the quota is {choices.quota}. Nothing was submitted. "
            f"Pass limit={choices.quota} to submit so many videos now, or a larger quota"
        )
    for item in pending[len(wanted) :]:
        item.ended = True


def _ending(item: Item, row: Row) -> dict[str, Any]:
    """An outcome's facts, as the journal remembers them."""
    message = row.error["message"] if row.error else ""
    if row.state is JobState.REJECTED:
        return {"error": restored(row.error or {})}
    assert row.video_id is not None  # noqa: S101  # for the type checker: it was rendered
    if row.state is JobState.FAILED:
        video = Video(video_id=row.video_id, status=VideoStatus.FAILED)
        return {"video": video, "error": VideoFailedError(message, video=video)}
    video = Video(video_id=row.video_id, status=VideoStatus.FINISHED)
    return {"video": video, "path": item.path, "mask_path": item.mask_path}
