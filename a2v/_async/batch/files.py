"""The files of a batch: which exist already, which may be written, and how videos are saved and resumed.

``a2v._core.file_names`` chooses the names. A video is saved in three steps, so that a crash at any point loses nothing:

1. The journal stores the ETag, and the bytes are written to a partial file.
2. When the partial file is complete, the journal stores its SHA-256.
3. The partial file is renamed to the final name.

The next run resumes the partial file, or only renames it.
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

_MAX_DOWNLOADS = 4
"""Maximum number of concurrent downloads. More would not be faster, and would leave more partial files after a failure."""


# -- before a run (blocking) ------------------------------------------------------------------------------------------


def check_journal_exists(journal: Path, paths: Iterable[Path | None]) -> None:
    """Check that the journal exists if videos of the batch exist: without the journal, a batch would pay for them again.

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
    journal_files = (
        [journal.with_name(f"{journal.name}{end}") for end in ("", ".lock", "-wal", "-shm")] if journal else []
    )
    return file_ids([*recordings, *journal_files])


def read_folder(matching: Matching) -> FolderState:
    """Return the existing files of a batch."""
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
    # Compare the content if another file of the same size could be at this path: another job's video, or a file with the new name.
    name = name_key(path.name)
    return (name == saved_name(row) and name not in other_files) or sha256_of(path) == row.sha256


def _earlier_file(match: Match) -> Path | None:
    """Return the file that an earlier run saved for a job whose name or folder has changed, if the file is unchanged."""
    path, row = match.path, match.row
    if path is None or row is None or row.path is None or row.sha256 is None:
        return None
    # The second candidate is for a folder that was moved.
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
        create_folders: Whether to create missing folders, ``True`` by default; otherwise, paths in missing folders are not checked.

    Raises:
        DownloadError: A video cannot be saved.
        OSError: A video cannot be saved, because of the file system.
    """
    for step in plan.steps:
        for path in step.outputs:
            if create_folders or path.parent.is_dir():
                Destination(path, overwrite, protected).prepare()


# -- during a run -----------------------------------------------------------------------------------------------------


class BatchFiles:
    """Saves the videos of a batch with their masks and captions, up to four at a time.

    Args:
        journal: The journal, which stores the progress of each download.
        overwrite: Whether existing files may be replaced.
        protected: Files that are never replaced.

    Attributes:
        downloads: The current downloads, by path: the number of bytes stored, and the size of the file (``None`` if unknown).
    """

    def __init__(self, journal: Journal, *, overwrite: bool, protected: frozenset[FileId]) -> None:
        self._journal = journal
        self._overwrite = overwrite
        self._protected = protected
        self.downloads: dict[Path, tuple[int, int | None]] = {}
        self._limiter = anyio.CapacityLimiter(_MAX_DOWNLOADS)

    async def save(self, task: AsyncVideoTask, identity: str, path: Path, side_files: Mapping[Path, FileKind]) -> None:
        """Save the video, the mask and the captions of a job. Complete files are kept.

        The video is saved last, so that its existence normally means that nothing is missing. It is saved even if another file
        fails.

        Args:
            task: The finished video.
            identity: The job's key in the journal.
            path: The path of the video.
            side_files: The paths of the mask and the captions, with their kinds.

        Raises:
            DownloadError: A file cannot be downloaded or stored.
            A2VError: An error of the task or the journal.
        """
        problem: DownloadError | None = None
        for side_file, kind in side_files.items():
            try:
                await self._save_side_file(task, side_file, kind)
            except DownloadError as error:
                problem = problem or error
        await self._save_video(task, identity, path)
        if problem:
            raise problem

    async def copy_renamed(self, steps: Iterable[Step]) -> dict[int, Exception]:
        """Copy the saved files of jobs whose name or folder has changed to the new paths. The old files stay.

        Returns:
            The errors, by the positions of the jobs.
        """
        return await in_thread(partial(self._copy_renamed, [step for step in steps if step.source]))

    def _copy_renamed(self, steps: Sequence[Step]) -> dict[int, Exception]:
        copies: list[tuple[int, Destination]] = []
        errors: dict[int, Exception] = {}
        # First make all copies, then rename them: two jobs may have swapped their names.
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
        for old, new in zip(side_files(step.match.job, source), step.match.side_files, strict=True):
            if old.is_file() and (self._overwrite or not new.exists()):
                yield old, new
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

    async def _save_side_file(self, task: AsyncVideoTask, path: Path, kind: FileKind) -> None:
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
        """Show the progress of a download in ``downloads`` during the block."""

        def on_progress(received: int, size: int | None) -> None:
            self.downloads[path] = received, size

        on_progress(0, None)
        try:
            yield on_progress
        finally:
            del self.downloads[path]


def part_key(salt: str, video_id: str) -> str:
    """Return the key of a video's partial file. The salt distinguishes journals, because batches may share a folder."""
    return hashlib.sha256(f"{salt} {video_id}".encode(errors="surrogatepass")).hexdigest()[:16]


@define(eq=False)
class _JournalResumeStore:
    """Stores the progress of a download in the journal."""

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
    """Return whether an earlier run downloaded the whole video. If it was interrupted before renaming the file, rename it now."""
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
