"""The rule that matches videos of the account to submissions with an unknown outcome.

The protocol has no idempotency key, and ``video.list`` does not say which request made a video. A wrong match would give a
user someone else's video, whereas a missing match only costs a manual check. So a video is matched only if nothing else can be
its origin:

* It was first listed after the submission began.
* Its origin is not known from elsewhere.
* It is the only such video for this submission, and this is the only unknown submission that could have made it.
* No video of unknown origin appeared between the beginning of the run and the submission. Such a video would show that
  another program submits with this account, and then the new video may be that program's too.

Times are *moments* of a logical clock: the number of the run times ``MOMENTS_PER_RUN``, plus the number of submissions that the
client had begun in that run. Videos that exist when a run begins are first listed at its beginning. A video may be the result of a
submission if it was first listed after the moment of the submission.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

MOMENTS_PER_RUN = 2**32
ORIGIN_KNOWN = 0
"""Replaces the moment at which a video was first listed if its origin is known."""


def match_unknown(
    unknown: Mapping[str, int | None],
    known: Mapping[str, int],
    listed: AbstractSet[str],
    elsewhere: Sequence[int] = (),
) -> dict[str, str]:
    """Match videos to unknown submissions.

    Args:
        unknown: The moment of each unknown submission, by item; ``None`` if the videos had not been listed before it.
        known: The moment at which each video was first listed, or ``ORIGIN_KNOWN``. A video that is missing here
            is new.
        listed: The account's current videos.
        elsewhere: The moments of this client's other submissions with unknown outcomes.

    Returns:
        The ``video_id`` of each matched item.
    """
    submissions = [*(moment or 0 for moment in unknown.values()), *elsewhere]

    def possible_origins(seen: float) -> int:
        return sum(seen > moment for moment in submissions)

    earliest = min(submissions, default=inf)
    candidates = {video_id: seen for video_id in listed if (seen := known.get(video_id, inf)) > earliest}
    foreign = [seen for seen in known.values() if seen != ORIGIN_KNOWN and not possible_origins(seen)]
    found = {}
    for item, moment in unknown.items():
        if moment is None:
            continue
        videos = [video_id for video_id, seen in candidates.items() if seen > moment]
        if len(videos) != 1 or possible_origins(candidates[videos[0]]) != 1:
            continue
        # Version 1 of the journal stored the number of the run instead of a moment.
        run_began = moment if moment < MOMENTS_PER_RUN else moment // MOMENTS_PER_RUN * MOMENTS_PER_RUN
        if not any(run_began < seen <= moment for seen in foreign):
            found[item] = videos[0]
    return found
