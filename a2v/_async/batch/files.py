"""The files of a batch: which exist already, which may be written, and how videos are saved and resumed.

``a2v._core.file_names`` decides the names. A video is saved in three steps, so that a crash between any two of them loses
nothing: the bytes go to a partial file, whose ETag is in the journal from the first byte; the digest of the complete file
goes to the journal; the file is renamed. The next run resumes the partial file, or only renames it.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from attrs import define

from a2v._async.batch.journal import Journal
from a2v._async.destination import Destination, FileId, file_ids, sync
from a2v._async.download import in_thread, sha256_of
from a2v._async.task import AsyncVideoTask, save
from a2v._core.batch_plan import FolderState
from a2v._core.file_names import FileKind, name_key, saved_name, side_files
from a2v._core.file_urls import path_from_url
from a2v._values.jobs import JobState
from a2v.errors import DownloadError, JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from a2v._core.batch_plan import BatchPlan, Step
    from a2v._core.job_matching import Match, Matching
    from a2v._core.journal_rows import JournalRow
    from a2v._values.jobs import Job

_CONCURRENT_DOWNLOADS = 4
"""More would not be faster, and would leave more partial files after a failure."""


# -- before a run (blocking) ------------------------------------------------------------------------------------------


def check_journal_exists(journal: Path, paths: Iterable[Path | None]) -> None:
    """Check that a journal does not exist only if the videos of its batch do not exist, either.

    Without its journal, a batch would pay for these videos again.

    Raises:
        JournalError: The journal is missing, and videos exist.
    """
    saved = [] if journal.exists() else [path for path in paths if path and path.is_file()]
    if saved:
        raise JournalError(
            f"there is no journal {journal}, but {len(saved)} of this batch's videos exist already, such as "
            f"{saved[0]}: name the right journal, or pass overwrite=True to render them again"
        )


def protected_files(jobs: Iterable[Job], journal: Path | None) -> frozenset[FileId]:
    """Return the files that a batch must never replace: its journal, and recordings that are local files."""
    recordings = {path_from_url(job.audio_url) for job in jobs}
    ours = [journal.with_name(journal.name + suffix) for suffix in ("", ".lock", "-wal", "-shm")] if journal else []
    return file_ids([*recordings, *ours])


def read_folder(matching: Matching) -> FolderState:
    """Return which of a batch's files exist."""
    paths = (path for match in matching.matches for path in (match.path, *match.side_files) if path)
    other_files = matching.other_files
    saved = {match.index for match in matching.matches if _is_saved(match, other_files)}
    found = ((match.index, _earlier_file(match)) for match in matching.matches if match.index not in saved)
    return FolderState(
        existing={path for path in paths if path.exists()},
        saved=saved,
        renamed={index: path for index, path in found if path},
    )


def _is_saved(match: Match, other_files: Container[str]) -> bool:
    path, row = match.path, match.row
    if path is None or row is None or not (row.sha256 or row.state is JobState.DONE) or not _has_size(path, row):
        return False
    # The video of another job may have been saved there, or another file may have the job's new name, with the same size.
    name = name_key(path.name)
    return (name == saved_name(row) and name not in other_files) or sha256_of(path) == row.sha256


def _earlier_file(match: Match) -> Path | None:
    """Return the saved file of a done job that has another name or folder now, if it is still the file that was saved."""
    path, row = match.path, match.row
    if path is None or row is None or row.path is None or row.sha256 is None:
        return None
    # The whole folder may have been moved.
    for file in (Path(row.path), path.with_name(Path(row.path).name)):
        if file != path and _has_size(file, row) and sha256_of(file) == row.sha256:
            return file
    return None


def check_outputs(
    plan: BatchPlan, protected: frozenset[FileId], *, overwrite: bool, create_folders: bool = True
) -> None:
    """Check, before anything is submitted, that each video can be saved.

    Args:
        plan: The plan of the run.
        protected: Files that are never replaced.
        overwrite: Whether other files may be replaced.
        create_folders: Whether to create missing folders; if not, nothing is checked in them.

    Raises:
        DownloadError: A video cannot be saved.
        OSError: The same, because of the file system.
    """
    for step in plan.steps:
        for path in step.outputs:
            if create_folders or path.parent.is_dir():
                Destination(path, overwrite, protected).prepare()


# -- during a run -----------------------------------------------------------------------------------------------------


class BatchFiles:
    """Saves the videos of a batch with their masks and captions, a few at a time.

    Args:
        journal: The journal, which has the progress of each download.
        overwrite: Whether existing files may be replaced.
        protected: Files that are never replaced.

    Attributes:
        downloads: The downloads at this moment: by path, the number of bytes stored and the size of the file, if known.
    """

    def __init__(self, journal: Journal, *, overwrite: bool, protected: frozenset[FileId]) -> None:
        self._journal = journal
        self._overwrite = overwrite
        self._protected = protected
        self.downloads: dict[Path, tuple[int, int | None]] = {}
        self._limiter = anyio.CapacityLimiter(_CONCURRENT_DOWNLOADS)

    async def save(self, task: AsyncVideoTask, identity: str, path: Path, side_files: Mapping[Path, FileKind]) -> None:
        """Save the video of a job, and the files beside it. Files that are complete already are kept.

        The video is saved last, so that its existence means that nothing is missing; but an error of another file does not
        prevent it.

        Args:
            task: The finished video.
            identity: The job's key in the journal.
            path: The path of the video.
            side_files: The paths of the files beside it, with their kinds.

        Raises:
            DownloadError: A file cannot be downloaded or stored.
            A2VError: As the task or the journal raises.
        """
        problem: DownloadError | None = None
        for other, kind in side_files.items():
            try:
                await self._save_beside(task, other, kind)
            except DownloadError as error:
                problem = problem or error
        await self._save_video(task, identity, path)
        if problem:
            raise problem

    async def copy_renamed(self, steps: Iterable[Step]) -> dict[int, Exception]:
        """Give the saved files of jobs that have another name or folder now their new names. The old files stay.

        Returns:
            The errors, by the places of their jobs.
        """
        return await in_thread(partial(self._copy_renamed, [step for step in steps if step.source]))

    def _copy_renamed(self, steps: Sequence[Step]) -> dict[int, Exception]:
        copies: list[tuple[int, Destination]] = []
        errors: dict[int, Exception] = {}
        # First all copies, then all names: jobs may have exchanged their names.
        for step in steps:
            index = step.match.index
            try:
                for source, path in self._sources(step):
                    copies.append((index, self._copy(source, path)))
            except (OSError, DownloadError) as error:
                errors[index] = error
        for index, destination in copies:
            try:
                if index not in errors:
                    destination.complete()
            except (OSError, DownloadError) as error:
                errors[index] = error
            finally:
                with suppress(OSError):
                    destination.part.unlink()
        return errors

    def _sources(self, step: Step) -> Iterator[tuple[Path, Path]]:
        """Yield the files to copy and their new paths, the video last."""
        source, path = step.source, step.match.path
        assert source is not None  # noqa: S101  # for the type checkers: see `copy_renamed`
        assert path is not None  # noqa: S101  # likewise: only saved videos are renamed
        for before, other in zip(side_files(step.match.job, source), step.match.side_files, strict=True):
            if before.is_file() and (self._overwrite or not other.exists()):
                yield before, other
        yield source, path

    def _copy(self, source: Path, path: Path) -> Destination:
        destination = Destination(path, self._overwrite, self._protected)
        try:
            destination.part.hardlink_to(source.resolve())
        except OSError:  # on another file system, or on one without hard links
            try:
                shutil.copyfile(source, destination.part)
                with destination.part.open("r+b") as file:
                    sync(file.fileno())
            except OSError:
                destination.part.unlink(missing_ok=True)
                raise
        return destination

    async def _save_beside(self, task: AsyncVideoTask, path: Path, kind: FileKind) -> None:
        if self._overwrite or not await in_thread(path.exists):
            destination = await in_thread(partial(Destination, path, self._overwrite, self._protected))
            async with self._limiter:
                with self._progress(path) as on_progress:
                    await save(task, destination, kind=kind, on_progress=on_progress)

    async def _save_video(self, task: AsyncVideoTask, identity: str, path: Path) -> None:
        row = await self._journal.run(partial(self._journal.row, identity))
        if self._journal.path is None:
            destination, resume_store = (
                await in_thread(partial(Destination, path, self._overwrite, self._protected)),
                None,
            )
        else:
            key = part_key(self._journal.salt, task.video_id)
            destination = await in_thread(partial(Destination, path, self._overwrite, self._protected, key))
            resume_store = _JournalResumeStore(self._journal, identity, row.etag, row.size)
            if await in_thread(partial(_complete_earlier_download, destination, row)):
                return
        async with self._limiter:
            with self._progress(path) as on_progress:
                await save(task, destination, resume_store, on_progress=on_progress)

    @contextmanager
    def _progress(self, path: Path) -> Iterator[Callable[[int, int | None], None]]:
        """Keep the progress of a download in ``downloads`` for the length of the block."""

        def on_progress(received: int, size: int | None) -> None:
            self.downloads[path] = received, size

        on_progress(0, None)
        try:
            yield on_progress
        finally:
            del self.downloads[path]


def part_key(salt: str, video_id: str) -> str:
    """Return the key of a video's partial file. It depends on the journal, because batches may share a folder."""
    return hashlib.sha256(f"{salt} {video_id}".encode(errors="surrogatepass")).hexdigest()[:16]


@define(eq=False)
class _JournalResumeStore:
    """Keeps the progress of a download in the journal."""

    journal: Journal
    identity: str
    etag: str | None
    size: int | None

    async def start(self, etag: str | None, size: int | None) -> None:
        """Record that the download starts at its first byte."""
        self.etag, self.size = etag, size
        await self.journal.run(partial(self.journal.download_started, self.identity, etag, size))

    async def complete(self, size: int, sha256: str) -> None:
        """Record that the partial file is complete."""
        await self.journal.run(partial(self.journal.download_completed, self.identity, size, sha256))


def _complete_earlier_download(destination: Destination, row: JournalRow) -> bool:
    """Return whether an earlier run has downloaded the whole video. If it was interrupted before renaming it, rename it now."""
    if row.sha256 is None:
        return False
    path, part = destination.path, destination.part
    if _has_size(path, row) and sha256_of(path) == row.sha256:
        part.unlink(missing_ok=True)
        return True
    if _has_size(part, row) and not part.is_symlink() and sha256_of(part) == row.sha256:
        destination.complete()
        return True
    return False


def _has_size(path: Path, row: JournalRow) -> bool:
    return path.is_file() and path.stat().st_size == row.size
