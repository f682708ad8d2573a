"""The rule that decides which video of the account is the result of a submission with an unknown outcome.

The protocol has no idempotency key, and ``video.list`` does not say which request made a video. A wrong match would give a
user someone else's video, and a missing one only costs a manual check, so a video is matched only if nothing else can be
its origin:

* it was first listed after the submission began;
* its origin is not known otherwise;
* it is the only such video for this submission, and this is the only unknown submission that it could result from;
* no video of unknown origin appeared between the beginning of the run and the submission. One that did would show that
  another program submits with this account, and the new video may be that program's, too.

A *moment* is a number: the number of the run times ``MOMENTS_PER_RUN``, plus the submissions that the client had begun in
that run. Videos that exist when a run begins are first seen at its beginning. A video whose first listing is later than the
moment of a submission may be the result of that submission.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

MOMENTS_PER_RUN = 2**32
ORIGIN_KNOWN = 0
"""In place of the moment at which a video was first listed: its origin is known."""


def match_unknown(
    unknown: Mapping[str, int | None],
    known: Mapping[str, int],
    listed: AbstractSet[str],
    elsewhere: Sequence[int] = (),
) -> dict[str, str]:
    """Return the videos that must be the results of unknown submissions.

    Args:
        unknown: The moment at which each unknown item was submitted; ``None`` if the videos had not been listed before.
        known: The moment at which each video was first listed, or ``ORIGIN_KNOWN``. A video that is missing here
            is new.
        listed: The account's videos now.
        elsewhere: The moments of other submissions of this client with unknown outcomes.

    Returns:
        The ``video_id`` of each item that is matched.
    """
    submissions = [*(moment or 0 for moment in unknown.values()), *elsewhere]

    def origins(seen: float) -> int:
        return sum(seen > moment for moment in submissions)

    earliest = min(submissions, default=inf)
    candidates = {video_id: seen for video_id in listed if (seen := known.get(video_id, inf)) > earliest}
    foreign = [seen for seen in known.values() if seen != ORIGIN_KNOWN and not origins(seen)]
    found = {}
    for item, moment in unknown.items():
        if moment is None:
            continue
        videos = [video_id for video_id, seen in candidates.items() if seen > moment]
        if len(videos) != 1 or origins(candidates[videos[0]]) != 1:
            continue
        # Version 1 of the journal kept the number of the run instead of a moment.
        run_began = moment if moment < MOMENTS_PER_RUN else moment // MOMENTS_PER_RUN * MOMENTS_PER_RUN
        if not any(run_began < seen <= moment for seen in foreign):
            found[item] = videos[0]
    return found
