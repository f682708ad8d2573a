"""A batch ends even if some of its videos never finish; the next run waits for those again."""

from __future__ import annotations

import math

import anyio
import pytest

import a2v
from tests.sets import one_by_default

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

HOUR = 3600.0
STUCK = {"status": "in_progressing"}
ODD = {"status": "archived"}


def jobs(*names: str) -> list[a2v.Job]:
    return [a2v.Job("eva_a0008", f"https://example.com/{name}.wav", name) for name in names]


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("look", "hours"),
    [
        pytest.param(STUCK, 24, id="stuck"),
        pytest.param(ODD, 2, id="unknown status"),
        pytest.param({}, 2, id="no status"),
        pytest.param(ODD, 24, id="unknown status for a day", marks=pytest.mark.extended),
        pytest.param({}, 24, id="no status for a day", marks=pytest.mark.extended),
    ],
)
async def test_a_video_that_never_ends_has_an_outcome(service, make_client, tmp_path, check, *, look, hours) -> None:
    service.plans = {"v1": [(0, look)]}
    began = anyio.current_time()
    limit = {} if hours == 24 else {"render_timeout": hours * HOUR}  # a day is the default
    async with make_client() as client, client.batch(jobs("a", "b"), journal=tmp_path / "j.db", **limit) as batch:
        seen = {outcome.job.name: outcome async for outcome in batch}
        assert (batch.progress.done, batch.progress.under_way, batch.progress.failed) == (1, 1, 0)
    assert anyio.current_time() - began == pytest.approx(hours * HOUR, abs=10)
    assert seen["b"].ok
    error = seen["a"].error
    assert isinstance(error, a2v.WaitTimeoutError)
    assert (error.video_id, error.waited) == ("v1", pytest.approx(hours * HOUR, abs=1))
    check(error)
    assert {entry.video_id: entry.state for entry in a2v.read_journal(tmp_path / "j.db")} == {
        "v1": a2v.JobState.SUBMITTED,
        "v2": a2v.JobState.DONE,
    }


async def test_the_next_run_waits_for_it_again_and_pays_for_nothing(service, make_client, tmp_path) -> None:
    service.plans = {"v1": [(0, STUCK), (5 * HOUR, service.plan[-1][1])]}
    again = {"resubmit_failed": True, "resubmit_unknown": True, "repeat": True}
    for waited in (False, False, True):
        async with make_client() as client:
            settings = {"journal": tmp_path / "j.db", "render_timeout": 2 * HOUR, **again}
            async with client.batch(jobs("a"), **settings) as batch:
                (outcome,) = [outcome async for outcome in batch]
        assert outcome.ok is waited
    assert service.posts == 1


@pytest.mark.simulation
@pytest.mark.parametrize("hours", one_by_default(25, 80))
async def test_without_a_limit_a_batch_waits_for_days(service, make_client, hours) -> None:
    service.plans = {"v1": [(0, STUCK), (hours * HOUR, service.plan[-1][1])]}
    async with make_client() as client, client.batch(jobs("a"), render_timeout=None) as batch:
        assert (await anext(batch)).ok


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, True, "60"])
async def test_an_invalid_render_timeout_is_refused(make_client, seconds) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match="render_timeout"):
        make_client().batch(jobs("a"), render_timeout=seconds)
