"""The allowed transitions between the states of a job in a batch.

::

    pending ⇄ submitting → submitted → finished → done
                 │  │          ↑  │
                 │  │          │  ├→ failed        the render failed
                 │  │          │  └→ lost          the server no longer knows the video
                 │  └→ unknown ┘                   reconciled: its video was found
                 └→ rejected                       the server refused it

The journal keeps the state and refuses any other transition. Two rules make sure that nothing is paid for twice: only a
pending job is submitted, and *unknown*, *failed*, *rejected* and *lost* jobs become pending again only by the caller's
choice (``resubmit_unknown``, ``resubmit_failed``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._values.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping


PREDECESSORS: Mapping[JobState, tuple[JobState, ...]] = {
    # From SUBMITTING, when nothing was sent or it was provably refused; from the others, by the caller's choice.
    JobState.PENDING: (JobState.SUBMITTING, JobState.UNKNOWN, JobState.FAILED, JobState.REJECTED, JobState.LOST),
    JobState.SUBMITTING: (JobState.PENDING,),
    JobState.UNKNOWN: (JobState.SUBMITTING,),
    JobState.SUBMITTED: (JobState.SUBMITTING, JobState.UNKNOWN),
    # From DONE, when the file is missing; from LOST, when the video has reappeared.
    JobState.FINISHED: (JobState.SUBMITTED, JobState.DONE, JobState.LOST),
    JobState.DONE: (JobState.FINISHED,),
    # From FINISHED, when the file is missing and the server reports an error for the video now.
    JobState.FAILED: (JobState.SUBMITTED, JobState.FINISHED, JobState.LOST),
    JobState.REJECTED: (JobState.SUBMITTING,),
    JobState.LOST: (JobState.SUBMITTED, JobState.FINISHED),
}
"""The states from which each state may be reached."""
