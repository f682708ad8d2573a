"""A submission with an unknown outcome: its video is found at the server, or it stays unknown; nothing is guessed."""

from __future__ import annotations

import logging

import anyio
import httpx
import pytest

import a2v

from .conftest import closed_meanwhile

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

LOST = httpx.ReadError("lost")


def jobs(*names: str) -> list[a2v.Job]:
    return [a2v.Job("eva_a0008", f"https://example.com/{name}.wav", name) for name in names]


@pytest.fixture
def listing(service):
    """A service that lists videos, and loses the response to each submission of a job called ``lost``."""
    service.lists_videos = True

    def generate(request):
        if b"/never" in request.content:
            raise LOST  # the request does not arrive
        reply = service.well(request)
        if b"/lost" in request.content:
            raise LOST
        return reply

    service.replies["video.generate"] = [generate]
    return service


async def run(client, journal, *names: str, **more):
    async with client.batch(jobs(*names), journal=journal, **more) as batch:
        return {outcome.job.name: outcome async for outcome in batch}


def is_unknown(outcome: a2v.Outcome) -> bool:
    return isinstance(outcome.error, a2v.SubmissionUnknownError)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "j.db"


OUTAGES = [
    httpx.ConnectError("away"),
    httpx.ReadError("away"),
    httpx.Response(503),
    httpx.Response(200, html="<h1>Maintenance</h1>"),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=["connect", "read", "503", "page"])
async def test_reconciliation_waits_for_an_outage_to_end(listing, make_client, journal, outage) -> None:
    """After five minutes the submission is found; its outcome is reported only then."""
    end = []

    def away(request):
        if end and anyio.current_time() < end[0]:
            if isinstance(outage, Exception):
                raise outage
            return httpx.Response(outage.status_code, content=outage.content, headers=outage.headers)
        return listing.well(request)

    def lose(request):
        end.append(anyio.current_time() + 300)
        listing.well(request)
        raise LOST

    listing.replies["video.generate"] = [lose, listing.well]
    for call in ("video.list", "video.get", "character.list"):
        listing.replies[call] = [away]
    async with make_client() as client:
        seen = await run(client, journal, "a", "b")
    assert {name: outcome.ok for name, outcome in seen.items()} == {"a": True, "b": True}
    assert listing.posts == 2


async def test_an_endless_outage_leaves_the_submission_unknown(listing, make_client, journal) -> None:
    listing.replies["video.list"] = [listing.well, httpx.ConnectError("away")]
    began = anyio.current_time()
    async with make_client() as client:
        assert is_unknown((await run(client, journal, "lost"))["lost"])
    assert 700 < anyio.current_time() - began < 1000


async def test_nothing_is_matched_if_the_first_listing_failed(listing, make_client, journal) -> None:
    """It is not known which videos are older than the submission, neither in this run nor in the next one."""
    listing.plans = {"theirs": listing.plan}
    listing.replies["video.list"] = [httpx.Response(503)] * 4 + [listing.well]
    async with make_client() as client:
        assert is_unknown((await run(client, journal, "never"))["never"])
    async with make_client() as client:
        assert is_unknown((await run(client, journal, "never"))["never"])


async def test_a_video_listed_before_the_submission_is_not_matched(listing, make_client, journal) -> None:
    """Another program's video is listed during the run, and then a submission does not arrive."""
    gate = anyio.Event()

    async def generate(request):
        if b"/never" in request.content:
            raise LOST
        if b"/b." in request.content:
            await gate.wait()
        return listing.well(request)

    listing.replies["video.generate"] = [generate]
    async with make_client() as client, client.batch(jobs("a", "b", "never"), journal=journal) as batch:
        await anyio.sleep(5)
        listing.plans = {"theirs": listing.plan}
        assert "theirs" in {video.video_id for video in await client.videos.list()}
        gate.set()
        seen = {outcome.job.name: outcome async for outcome in batch}
    assert is_unknown(seen["never"])
    # Neither is it in the next run.
    async with make_client() as client:
        assert is_unknown((await run(client, journal, "a", "b", "never"))["never"])


async def test_nothing_is_matched_if_another_program_submits(listing, make_client, journal) -> None:
    """A video of another program was seen before, so the new one may be that program's, too."""
    gate = anyio.Event()

    async def generate(request):
        if b"/b." in request.content:
            await gate.wait()
        if b"/never" in request.content:
            listing.plans |= {"their second": listing.plan}
            raise LOST
        return listing.well(request)

    listing.replies["video.generate"] = [generate]
    async with make_client() as client, client.batch(jobs("a", "b", "never"), journal=journal) as batch:
        await anyio.sleep(5)
        listing.plans = {"theirs": listing.plan}
        await client.videos.list()
        gate.set()
        seen = {outcome.job.name: outcome async for outcome in batch}
    assert is_unknown(seen["never"])


@pytest.mark.parametrize("when", ["before", "during", "after"])
async def test_other_submissions_of_the_client_are_not_matched(listing, make_client, journal, when) -> None:
    """Before the batch begins, during its submission, and during reconciliation."""
    shown = listing.well

    def show(request):
        return shown(request)

    listing.replies["video.list"] = [show]
    arrived = anyio.Event()

    async def generate(request):
        if b"/never" in request.content:
            arrived.set()
            await anyio.sleep(5)
            raise LOST
        if b"/own" in request.content:
            reply = listing.well(request)
            await anyio.sleep(20)
            return reply
        return listing.well(request)

    listing.replies["video.generate"] = [generate]
    own = {"model_id": "eva_a0008", "audio_url": "https://example.com/own.wav"}
    async with make_client() as client:
        if when == "before":
            # Not listed at once, as on a server with several machines.
            shown = _empty
            await client.videos.generate(**own)
        async with client.batch(jobs("never"), journal=journal) as batch:
            await arrived.wait()
            shown = listing.well
            if when != "before":
                await anyio.sleep(60 if when == "after" else 1)
                await client.videos.generate(**own)
            (outcome,) = [outcome async for outcome in batch]
        assert is_unknown(outcome)
        # Neither is it by the next run of the same client.
        assert is_unknown((await run(client, journal, "never"))["never"])
    assert len(listing.jobs) == 1


def _empty(request):
    return httpx.Response(200, json={"code": 0, "message": "success", "data": []})


async def test_reconciliation_waits_for_submissions_in_flight(listing, make_client, journal) -> None:
    """Its video is listed during reconciliation, before its response arrives."""

    async def generate(request):
        if b"/never" in request.content:
            raise LOST
        reply = listing.well(request)
        await anyio.sleep(25)
        return reply

    listing.replies["video.generate"] = [generate]
    async with make_client() as client, client.batch(jobs("never"), journal=journal) as batch:
        await anyio.sleep(115)
        await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/own.wav")
        assert is_unknown(await anext(batch))


@pytest.mark.parametrize("how", ["lost", "cancelled"])
async def test_an_unknown_submission_outside_the_batch_prevents_a_match(listing, make_client, journal, how) -> None:
    """One video exists, and it may be the result of either."""

    async def generate(request):
        if b"/never" in request.content:
            raise LOST
        listing.well(request)
        await anyio.sleep(5)
        raise LOST

    listing.replies["video.generate"] = [generate]
    async with make_client() as client, client.batch(jobs("never"), journal=journal) as batch:
        await anyio.sleep(2)
        with anyio.move_on_after(3 if how == "cancelled" else 100):
            with pytest.raises(a2v.SubmissionUnknownError) if how == "lost" else anyio.CancelScope():
                await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/own.wav")
        assert is_unknown(await anext(batch))


async def test_two_batches_of_one_client_do_not_take_each_others_videos(listing, make_client, tmp_path) -> None:
    """Both have an unknown submission, and one video exists."""
    outcomes, at_once = {}, listing.replies["video.generate"][0]

    async def generate(request):
        await anyio.sleep(3)
        return at_once(request)

    listing.replies["video.generate"] = [generate]

    async def one(client, name: str) -> None:
        outcomes[name] = (await run(client, tmp_path / f"{name}.db", name))[name]

    async with make_client() as client:
        async with anyio.create_task_group() as group:
            group.start_soon(one, client, "lost")
            group.start_soon(one, client, "never")
        assert is_unknown(outcomes["lost"])
        assert is_unknown(outcomes["never"])
        # Each one alone, later: the other one's unknown submission still prevents a match.
        assert is_unknown((await run(client, tmp_path / "never.db", "never"))["never"])
        assert is_unknown((await run(client, tmp_path / "lost.db", "lost"))["lost"])


async def test_a_video_listed_before_another_unknown_submission_is_matched(listing, make_client, tmp_path) -> None:
    """The first one is found even though the second one never is, because its submission began later."""
    async with make_client() as client, anyio.create_task_group() as group:
        outcomes = {}

        async def one(name: str) -> None:
            outcomes[name] = (await run(client, tmp_path / f"{name}.db", name))[name]

        group.start_soon(one, "lost")
        await anyio.sleep(5)
        await client.videos.list()
        group.start_soon(one, "never")
    assert outcomes["lost"].ok
    assert is_unknown(outcomes["never"])


async def test_a_batch_beside_another_one_finds_its_own_video(listing, make_client, tmp_path) -> None:
    """The other one submits all the time, and the origin of all its videos is known."""
    outcomes = {}

    async def one(client, *names: str) -> None:
        outcomes.update(await run(client, tmp_path / f"{names[0]}.db", *names))

    async with make_client(rate_limit=30) as client, anyio.create_task_group() as group:
        group.start_soon(one, client, *map(str, range(60)))
        await anyio.sleep(10)
        group.start_soon(one, client, "lost")
    assert {name for name, outcome in outcomes.items() if not outcome.ok} == set()
    assert len(listing.jobs) == 61


async def test_a_second_batch_of_the_same_client_finds_the_video(listing, make_client, journal) -> None:
    """The first one was left during reconciliation; its unknown submission does not prevent a match with itself."""
    async with make_client() as client:
        async with client.batch(jobs("lost"), journal=journal):
            await anyio.sleep(60)
        assert (await run(client, journal, "lost"))["lost"].ok
    assert listing.posts == 1


async def test_a_video_whose_id_the_caller_knows_is_not_matched(listing, make_client, journal) -> None:
    def generate(request):
        listing.plans = {"theirs": listing.plan}
        raise LOST

    listing.replies["video.generate"] = [generate]
    async with make_client() as client, client.batch(jobs("a"), journal=journal) as batch:
        await anyio.sleep(10)
        await client.videos.get("theirs")
        assert is_unknown(await anext(batch))


# -- warnings ---------------------------------------------------------------------------------------------------------


async def test_a_cancelled_submission_warns_that_it_may_have_been_accepted(service, make_client, caplog) -> None:
    async def hang(request):
        service.well(request)
        await anyio.sleep_forever()

    service.replies["video.generate"] = [hang]
    caught = []
    async with make_client() as client:
        with caplog.at_level(logging.WARNING, "a2v.client"), anyio.move_on_after(5):
            try:
                await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
            except anyio.get_cancelled_exc_class() as error:
                caught += error.__notes__
                raise
    (record,) = caplog.records
    assert "may have accepted the render" in record.getMessage()
    assert "may have accepted the render" in caught[0]


async def test_closing_the_client_during_a_submission_warns_too(service, make_client) -> None:
    async def hang(request):
        await anyio.sleep_forever()

    service.replies["video.generate"] = [hang]
    async with make_client() as client, closed_meanwhile(client):
        with pytest.raises(a2v.ClientClosedError) as caught:
            await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
    assert "may have accepted the render" in caught.value.__notes__[0]


async def test_a_batch_cancelled_during_a_submission_logs_the_warning(service, make_client, caplog) -> None:
    async def hang(request):
        await anyio.sleep_forever()

    service.replies["video.generate"] = [hang]
    with caplog.at_level(logging.WARNING, "a2v.client"):
        async with make_client() as client:
            with anyio.move_on_after(5):
                async with client.batch(jobs("a")) as batch:
                    await anext(batch)
    assert "may have accepted the render" in caplog.text


@pytest.mark.parametrize("answer", [httpx.Response(429), httpx.ConnectError("down")], ids=["refused", "not sent"])
async def test_a_submission_that_did_not_arrive_does_not_warn(service, make_client, caplog, answer) -> None:
    service.replies["video.generate"] = [answer]
    async with make_client() as client:
        with caplog.at_level(logging.WARNING, "a2v.client"), anyio.move_on_after(1):
            await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
    assert not caplog.records


@pytest.mark.parametrize("arrived", [True, False])
async def test_an_unknown_submission_counts_as_in_flight(listing, make_client, journal, arrived) -> None:
    """It may be rendering, so the next submission waits until reconciliation has ended."""
    uncertain = "lost" if arrived else "never"
    under_way: list[int] = []
    finished: set[str] = set()

    def look(request):
        reply = listing.well(request)
        if reply.json()["data"]["status"] == "finished":
            finished.add(request.url.params["video_id"])
        return reply

    [generate] = listing.replies["video.generate"]

    def submit(request):
        under_way.append(len(listing.submissions) - len(finished))
        return generate(request)

    listing.plan = [
        (0, {"status": "pending"}),
        (900, {"status": "finished", "video_url": "https://files.example/v.mp4"}),
    ]
    listing.replies |= {"video.get": [look], "video.generate": [submit]}
    async with make_client() as client:
        seen = await run(client, journal, uncertain, "b", "c", max_in_flight=1)
    assert [name for name, outcome in seen.items() if outcome.ok] == ([uncertain] if arrived else []) + ["b", "c"]
    assert under_way == [0, 0, 0]
