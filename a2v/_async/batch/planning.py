"""Plans a run or a dry run: reads the journal and the folder, and calls the pure planner of ``a2v._core.batch_plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._async.batch.files import check_journal_exists, check_outputs, protected_files, read_folder
from a2v._async.batch.journal import read_recovered_rows
from a2v._core.batch_plan import plan_batch
from a2v._core.file_names import default_paths
from a2v._core.job_matching import match_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from a2v._async.destination import FileId
    from a2v._core.batch_options import BatchOptions
    from a2v._core.batch_plan import BatchPlan
    from a2v._core.journal_rows import JournalRow
    from a2v._values.jobs import Job


def check_new_batch(jobs: Sequence[Job], options: BatchOptions, journal: Path) -> None:
    """Check that a batch without a journal can start, before the journal is created.

    Raises:
        A2VError: The batch cannot start.
    """
    if not journal.exists():
        plan_dry_run(jobs, options)


def plan_dry_run(jobs: Sequence[Job], options: BatchOptions) -> BatchPlan:
    """Return the plan that a run would have. Nothing is changed or sent.

    Args:
        jobs: The jobs of the batch.
        options: The options of the batch. The journal need not exist.

    Raises:
        A2VError: The error with which a run would fail to start.
    """
    journal = options.journal
    if journal and not options.overwrite:
        check_journal_exists(journal, default_paths(jobs, options.save_to))
    rows = read_recovered_rows(journal) if journal and journal.exists() else []
    return make_plan(jobs, rows, options, protected_files(jobs, journal), create_folders=False)


def make_plan(
    jobs: Sequence[Job],
    rows: Sequence[JournalRow],
    options: BatchOptions,
    protected: frozenset[FileId],
    *,
    create_folders: bool = True,
) -> BatchPlan:
    """Return the plan of a run, after checking that its videos can be saved.

    Args:
        jobs: The jobs of the batch.
        rows: The rows of the journal.
        options: The options of the batch.
        protected: Files that are never replaced.
        create_folders: Whether to create missing folders, ``True`` by default; otherwise, paths in missing folders are not checked.

    Raises:
        AmbiguousJobsError: New jobs may be the same as jobs of the journal.
        ConfigurationError: The run would submit more than ``quota`` allows.
        DownloadError: A video cannot be saved.
        OSError: A video cannot be saved, because of the file system.
    """
    matching = match_jobs(jobs, rows, default_paths(jobs, options.save_to), options.recordings)
    plan = plan_batch(matching, read_folder(matching), options)
    check_outputs(plan, protected, overwrite=options.overwrite, create_folders=create_folders)
    return plan
