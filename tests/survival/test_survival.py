"""Batches that are ended at every instant there is: run again, they pay for nothing twice and lose nothing."""

from __future__ import annotations

import random
import sys

import pytest

import a2v

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork and SIGKILL")

# What is killed after its submission was noted and before its id was is in doubt, if the server does not list it.
INSTANTS = [
    "before creating",
    "after creating",
    "before inserting",
    "after inserting",
    "before submitting",
    "after submitting",
    "before submitted",
    "after submitted",
    "before finished",
    "after finished",
    "before a piece",
    "after a piece",
    "before whole",
    "after whole",
    "before naming",
    "after naming",
    "before done",
    "after done",
    "before reporting",
    "after reporting",
]
KINDS = ["SIGKILL", "SIGINT", "cancel", "ENOSPC", "EIO"]


@pytest.mark.parametrize("lists", [True, False], ids=["with a list", "without"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_instant(make_batch, service, kind, lists) -> None:
    """Each named instant of a batch's life, each way to end there; then the same command again."""
    service.lists_videos = lists
    for number, instant in enumerate(INSTANTS):
        batch = make_batch([f"{number}-{name}" for name in "abc"])
        backend = ("asyncio", "trio")[number % 2]
        ended = batch.run(trouble=[instant, kind], backend=backend)
        assert (ended == "killed") is (kind == "SIGKILL"), instant
        assert ended != "died", instant
        assert batch.run(backend=backend) == "done", instant
        in_doubt = 0 if lists and kind != "SIGKILL" else 1
        batch.is_sound(in_doubt=in_doubt, told_again=1)


def test_killed_while_it_goes_on(make_batch, service) -> None:
    """The second and the third run are killed as well, each a little later in its life."""
    for number, instant in enumerate(INSTANTS[4:]):
        batch = make_batch([f"{number}-{name}" for name in "abcd"])
        batch.run(trouble=["after submitting", "SIGKILL"])
        batch.run(trouble=[instant, "SIGKILL"])
        batch.run(trouble=["before done", "SIGKILL"])
        assert batch.run() == "done"
        batch.is_sound(in_doubt=3, told_again=3)


@pytest.mark.parametrize("lists", [True, False], ids=["with a list", "without"])
def test_killed_at_random(make_batch, service, request, lists) -> None:
    """As many kills as ``--kills`` says, half of them here; what is in doubt is never more than the kills."""
    service.lists_videos = lists
    draw = random.Random(f"{lists}")
    kills = duplicates = number = 0
    while kills < request.config.getoption("--kills") // 2:
        number += 1
        batch = make_batch([f"{number}-{n}" for n in range(12)])
        killed = 0
        while batch.run(kill_after=draw.uniform(0, 0.35)) == "killed":
            killed += 1
        batch.is_sound(in_doubt=killed, told_again=killed)
        kills += killed
        duplicates += sum(count - 1 for count in batch.submits.values())
    assert duplicates == 0


def test_two_processes_on_one_journal(make_batch, service, nursery) -> None:
    """The second is refused, and says nothing to the server."""
    service.delay("video.get", 0.5, times=None)
    batch = make_batch(["a", "b"])
    folder, jobs = str(batch.folder), batch.jobs
    first = {"folder": folder, "base_url": service.files_url, "jobs": jobs}
    nursery._write(first)
    nursery._read()
    while not service.submits:
        pass
    other = type(nursery)()
    try:
        refused = other.run(**first)
    finally:
        other.close()
    assert refused["ended"] == "JournalError"
    assert "another process works on" in refused["error"]
    assert nursery._read()["ended"] == "done"
    batch.is_sound()


def test_downloads_that_are_cut_anywhere(make_batch, service) -> None:
    """Cut at random bytes again and again, within a run and by a kill: whole files in the end, and none before."""
    draw = random.Random("cut")
    for number in range(4):
        batch = make_batch([f"{number}-{name}" for name in "ab"])
        for _ in range(draw.randrange(1, 5)):
            service.break_off(after=draw.randrange(300_000))
        batch.run(trouble=["after a piece", "SIGKILL"])
        assert not list((batch.folder / "videos").glob("*.mp4"))
        assert batch.run() == "done"
        service.recover()
        batch.is_sound(told_again=1)


def test_a_journal_is_read_while_another_process_writes_it(make_batch, service, nursery) -> None:
    service.delay("video.get", 0.3, times=None)
    batch = make_batch(["a", "b"])
    nursery._write({"folder": str(batch.folder), "base_url": service.files_url, "jobs": batch.jobs})
    nursery._read()
    while len(service.submits) < 2:
        pass
    states = {entry.state for entry in a2v.read_journal(batch.folder / "batch.db")}
    assert states <= {a2v.JobState.SUBMITTED, a2v.JobState.SUBMITTING, a2v.JobState.FINISHED, a2v.JobState.DONE}
    assert nursery._read()["ended"] == "done"
    batch.is_sound()
