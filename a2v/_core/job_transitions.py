"""The allowed transitions between the states of a job in a batch.

::

    pending ⇄ submitting → submitted → finished → done
                 │  │          ↑  │
                 │  │          │  ├→ failed        the render failed
                 │  │          │  └→ lost          the server no longer knows the video
                 │  └→ unknown ┘                   reconciled: its video was found
                 └→ rejected                       the server rejected it

The journal stores the state and raises an error on any other transition. Two rules ensure that nothing is paid for twice: only
*pending* jobs are submitted, and *unknown*, *failed*, *rejected* and *lost* jobs become pending again only if the caller asks for
it (``resubmit_unknown``, ``resubmit_failed``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._values.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping


PREDECESSORS: Mapping[JobState, tuple[JobState, ...]] = {
    # From SUBMITTING: nothing was sent, or the request was provably rejected. From the others: the caller asked for it.
    JobState.PENDING: (JobState.SUBMITTING, JobState.UNKNOWN, JobState.FAILED, JobState.REJECTED, JobState.LOST),
    JobState.SUBMITTING: (JobState.PENDING,),
    JobState.UNKNOWN: (JobState.SUBMITTING,),
    JobState.SUBMITTED: (JobState.SUBMITTING, JobState.UNKNOWN),
    # From DONE: the file is missing. From LOST: the video has reappeared.
    JobState.FINISHED: (JobState.SUBMITTED, JobState.DONE, JobState.LOST),
    JobState.DONE: (JobState.FINISHED,),
    # From FINISHED: the file was missing, and the server now reports an error for the video.
    JobState.FAILED: (JobState.SUBMITTED, JobState.FINISHED, JobState.LOST),
    JobState.REJECTED: (JobState.SUBMITTING,),
    JobState.LOST: (JobState.SUBMITTED, JobState.FINISHED),
}
"""The states from which each state may be reached."""
