"""Matches the jobs of a batch with the journal's rows, so that running a batch again pays for nothing twice.

A job is identified by its submitted values: character or pose, mask, options, and either the full ``audio_url`` without a complete
signature (``url_signatures.py``) or the text and the voice. Several jobs may be equal, because a user may want the same video
twice. Equal jobs are matched by ``name`` first and then by order, so that inserting a second job above the first one does not swap
their videos.

The query of a URL may be a signature that ``url_signatures.py`` does not recognise. So if a new job differs only in the query from
a row whose job is gone, it may be the same recording with a new signature, or another recording. Only the caller knows, so the
batch does not start until ``recordings`` is given.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from a2v._core.file_names import FileKind, assign_paths, name_key, saved_name, side_files
from a2v._core.journal_rows import JournalRow
from a2v._core.url_signatures import map_urls, unsigned, without_query
from a2v._values.jobs import Job, JobState
from a2v.errors import AmbiguousJobsError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from a2v._core.batch_options import Recordings
    from a2v._values.jobs import JournalEntry

# `json.dumps` would make an encoder for each job.
_to_json = json.JSONEncoder(sort_keys=True).encode
# The number of pairs in the error's message; its attribute `pairs` has all.
_MAX_LISTED = 100

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")


@frozen(kw_only=True)
class Match:
    """A job and its journal row.

    Attributes:
        index: The job's position in the batch, from 0.
        job: The job.
        identity: The key of the job's row from now on.
        row: The row before this run; ``None`` if the job is new.
        path: The path of the job's video; ``None`` if the batch saves no videos.
    """

    index: int
    job: Job
    identity: str
    row: JournalRow | None
    path: Path | None = None

    @property
    def side_files(self) -> Mapping[Path, FileKind]:
        """The paths of the job's mask and captions, with their kinds."""
        return side_files(self.job, self.path) if self.path else {}

    @property
    def saved(self) -> Mapping[str, Any]:
        """The paths of the job's files, as keyword arguments for ``Outcome``."""
        masks, captions = (
            tuple(path for path, kind in self.side_files.items() if kind == wanted) for wanted in ("mask", "captions")
        )
        return {"path": self.path, "mask_path": masks[0] if masks else None, "captions_paths": captions}


@frozen(kw_only=True)
class Matching:
    """The jobs of a batch, matched with the rows of its journal.

    Attributes:
        matches: One for each job, in the order of the jobs.
        gone: The rows whose jobs are not in the batch.
    """

    matches: Sequence[Match]
    gone: Sequence[JournalRow]

    @property
    def other_files(self) -> Mapping[str, JournalRow]:
        """The saved files that are not at the path of a job: rows by the ``name_key`` of their files.

        The jobs of these rows are gone, or have another path now. Names are compared rather than paths, because a folder may have
        been moved, and has more than one spelling.
        """
        rows = [(match.row, match.path) for match in self.matches if match.row]
        moved = [row for row, path in rows if not path or saved_name(row) != name_key(path.name)]
        return {name: row for row in (*moved, *self.gone) if (name := saved_name(row))}


def job_digest(job: Job) -> str:
    """Return a digest of a job's submitted values, without the signatures of URLs."""
    from a2v._core import wire  # noqa: PLC0415  # not needed by `import a2v`

    request = wire.job_data(job) | ({"audio_url": unsigned(job.audio_url)} if job.audio_url else {})
    request |= map_urls(job.options, unsigned)
    return hashlib.sha256(_to_json(request).encode()).hexdigest()


def repeated_jobs(jobs: Iterable[Job]) -> list[tuple[int, ...]]:
    """Find the jobs that request the same video, regardless of their names. Each of them is rendered, and paid for.

    Returns:
        For each such video, the positions of its jobs, from 0.
    """
    places = _group((job_digest(job), place) for place, job in enumerate(jobs))
    return [tuple(same) for same in places.values() if len(same) > 1]


def match_jobs(
    jobs: Sequence[Job],
    rows: Iterable[JournalRow],
    default_paths: Sequence[Path | None],
    recordings: Recordings | None = None,
) -> Matching:
    """Find the row of each job.

    Args:
        jobs: The jobs of the batch.
        rows: The rows of the journal.
        default_paths: The paths of the jobs' videos in a first run.
        recordings: How to treat a new job that differs only in the query from a row whose job is gone: as the ``"same"`` recording
            or a ``"new"`` one.

    Raises:
        AmbiguousJobsError: There are such jobs, and ``recordings`` is ``None``.
    """
    in_order = sorted(rows, key=lambda row: (row.place is None, row.place, row.number))
    digests = [job_digest(job) for job in jobs]
    found = _pair_by_key(enumerate(digests), ((row.digest, row) for row in in_order), jobs)
    gone = _without(in_order, found.values())
    if recordings != "new":
        # Rows that were never submitted are not ambiguous: submitting their jobs cannot pay for anything twice.
        submitted = [row for row in gone if row.state is not JobState.PENDING and row.job.audio_url]
        new = [index for index, job in enumerate(jobs) if submitted and index not in found and job.audio_url]
        keys = ((index, _without_query(jobs[index])) for index in new)
        similar = _pair_by_key(keys, ((_without_query(row.job), row) for row in submitted), jobs)
        if similar and recordings is None:
            raise _ambiguous(jobs, similar)
        found |= similar
        gone = _without(gone, similar.values())
    identities = _identities(digests, found, in_order)
    paths = assign_paths(jobs, default_paths, found, in_order)
    matches = [
        Match(index=index, job=job, identity=identity, row=found.get(index), path=path)
        for index, (job, identity, path) in enumerate(zip(jobs, identities, paths, strict=True))
    ]
    return Matching(matches=matches, gone=gone)


def _pair_by_key(
    jobs: Iterable[tuple[int, K]], rows: Iterable[tuple[K, JournalRow]], all_jobs: Sequence[Job]
) -> dict[int, JournalRow]:
    """Pair jobs with rows that have the same key: by name first, and the others in order."""
    found: dict[int, JournalRow] = {}
    rows_by_key = _group(rows)
    for key, indices in _group((key, index) for index, key in jobs if key in rows_by_key).items():
        free = rows_by_key[key]
        named = _group((row.job.name, row) for row in free)
        by_name = {index: same.pop(0) for index in indices if (same := named.get(all_jobs[index].name))}
        others = [index for index in indices if index not in by_name]
        found |= by_name | dict(zip(others, _without(free, by_name.values()), strict=False))
    return found


def _group(pairs: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _without(rows: Iterable[JournalRow], removed: Iterable[JournalRow]) -> list[JournalRow]:
    identities = {row.identity for row in removed}
    return [row for row in rows if row.identity not in identities]


def _without_query(job: Job) -> tuple[object, ...]:
    options = _to_json(map_urls(job.options, without_query))
    return job.model_id, job.pose_id, job.with_mask, without_query(job.audio_url or ""), options


def _identities(digests: Sequence[str], found: Mapping[int, JournalRow], rows: Iterable[JournalRow]) -> Iterator[str]:
    """Yield the key of each job's row: the current key if it has the job's digest, else the digest and the first free number."""
    taken = {row.identity for row in rows}
    numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
    for index, digest in enumerate(digests):
        row = found.get(index)
        if row and row.digest == digest:
            yield row.identity
        else:
            yield next(key for number in numbers[digest] if (key := f"{digest}-{number}") not in taken)


def _ambiguous(jobs: Sequence[Job], similar: Mapping[int, JournalRow]) -> AmbiguousJobsError:
    pairs = tuple((index, similar[index].entry) for index in sorted(similar))
    labels = [f"job {index + 1}" + (f" ({jobs[index].name})" if jobs[index].name else "") for index, _ in pairs]
    return AmbiguousJobsError("\n".join(ambiguity_lines(labels, [entry for _, entry in pairs])), pairs=pairs)


def ambiguity_lines(labels: Sequence[str], entries: Sequence[JournalEntry]) -> list[str]:
    """Return the lines of the message of an ``AmbiguousJobsError``.

    Args:
        labels: The names of the jobs.
        entries: For each job, the journal entry that may be the same job.
    """
    listed = [
        f"  {label} may be {_describe(entry)}: {entry.job.audio_url}"
        for label, entry in zip(labels, entries, strict=True)
    ][:_MAX_LISTED]
    more = [f"  … and {len(entries) - _MAX_LISTED} more"] if len(entries) > _MAX_LISTED else []
    many = len(entries) > 1
    return [
        (
            f"{len(entries)} new job{'s differ' if many else ' differs'} only in the query of the audio_url from "
            f"{'jobs' if many else 'a job'} of the journal that {'are' if many else 'is'} no longer in the batch: the same "
            "recording with a new signature, or another recording? Nothing was submitted."
        ),
        *listed,
        *more,
        (
            'Pass recordings="same" if they are the same recordings: nothing is paid for again. '
            'Pass recordings="new" if they are new recordings: each is submitted, and paid for.'
        ),
    ]


def _describe(entry: JournalEntry) -> str:
    name = entry.job.name or (Path(entry.path).stem if entry.path else None)
    place = f"job {entry.place + 1} of the last run" if entry.place is not None else None
    facts = [place if name else None, entry.state.value, f"video {entry.video_id}" if entry.video_id else None]
    return f"{name or place or 'an earlier job'} ({', '.join(fact for fact in facts if fact)})"
