"""The folder in which the local engine of a batch keeps its work, ``a2v-engine`` beside the videos.

It exists so that an interrupted batch loses no render: it has the engine's token, tasks and videos, and copies of the recordings,
which a resumed render needs even if the original is gone. Once a video is saved, these are second copies, and are removed.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from a2v import ConfigurationError, JobState
from a2v._core.file_urls import path_from_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from a2v import Job, JournalEntry
    from a2v.engine.task_store import Task


_ALL = 1_000_000
# The states in which the engine may still be needed. A job that is submitted again is a new task.
_UNFINISHED = frozenset([JobState.SUBMITTING, JobState.UNKNOWN, JobState.SUBMITTED, JobState.FINISHED, JobState.LOST])


def remove_copies(folder: Path, entries: Sequence[JournalEntry]) -> None:
    """Remove the tasks, videos and recordings of jobs that have ended, and the folder if nothing else is in it.

    Batches with journals of their own may share the folder. Failures are ignored: copies only take space, and the next run
    removes them.

    Args:
        folder: The data folder of the engine, which has stopped.
        entries: The jobs of the journal.
    """
    if not folder.is_dir():
        return
    from a2v.engine.data_folder import DATABASE, remove_data_folder  # noqa: PLC0415  # an extra
    from a2v.engine.task_store import TaskStore  # noqa: PLC0415
    from a2v.engine.video_options import VIDEO_EXTENSIONS  # noqa: PLC0415

    ended = [entry for entry in entries if entry.state not in _UNFINISHED]
    with suppress(OSError, sqlite3.Error, ConfigurationError):
        with TaskStore(folder / DATABASE) as store:
            for video_id in (entry.video_id for entry in ended if entry.video_id):
                for extension in VIDEO_EXTENSIONS:
                    (folder / "videos" / f"{video_id}{extension}").unlink(missing_ok=True)
                store.delete(video_id)
            tasks = store.newest(_ALL)
        recordings = folder / "recordings"
        needed = _recordings(url for task in tasks for url in _urls(task))
        needed |= _recordings(url for entry in entries if entry.state in _UNFINISHED for url in _urls(entry.job))
        for name in _recordings(url for entry in ended for url in _urls(entry.job)) - needed:
            (recordings / name).unlink(missing_ok=True)
        if not tasks and not (recordings.is_dir() and any(recordings.iterdir())):
            remove_data_folder(folder)


def _urls(source: Job | Task) -> Iterator[str]:
    """Yield the URLs of the files of a job."""
    yield from (url for url in (source.audio_url, source.options.get("background")) if isinstance(url, str))


def _recordings(audio_urls: Iterable[str | None]) -> set[str]:
    return {path.name for url in audio_urls if (path := path_from_url(url))}
