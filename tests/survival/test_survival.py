"""Batches that are ended at each named instant and run again: nothing is paid for twice, and nothing is lost."""

from __future__ import annotations

import random
import sys
import threading
import wave
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import av
import pytest

import a2v
from a2v.engine import LocalEngine
from a2v.engine.audio import RATE, decode

CLIPS = Path(a2v.__file__).parent / "engine" / "recordings"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork and SIGKILL")

# A submission that is recorded and whose id is not has an unknown outcome, unless the server lists its video.
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
# How the run ends, and whether the server has `video.list`, in which the videos of unknown submissions are found.
KINDS = [("SIGKILL", True), ("SIGKILL", False), ("SIGINT", True), ("cancel", False), ("ENOSPC", False), ("EIO", True)]
SERIES = 4  # of kills at random, side by side


def wait_for(service, *, submits: int) -> None:
    """Until another process has got so far."""
    for _ in range(3000):
        if len(service.submissions) >= submits:
            return
        threading.Event().wait(0.01)
    pytest.fail(f"{len(service.submissions)} of {submits} submits after half a minute")


def _end_at_every_instant(make_batch, at_once, kinds: list[tuple[str, bool]]) -> tuple[dict[str, str], dict[str, str]]:
    """End a batch at each named instant, then run the same command again. Return how the first and the second runs ended."""
    batches = [
        make_batch([f"{number}-{name}" for name in "abc"], lists_videos=kinds[number][1])
        for number in range(len(INSTANTS))
    ]

    def end_at(number: int) -> tuple[str, str]:
        backend = ("asyncio", "trio")[number % 2]
        trouble = [INSTANTS[number], kinds[number][0]]
        return batches[number].run(trouble=trouble, backend=backend), batches[number].run(backend=backend)

    firsts, seconds = zip(*at_once(end_at, range(len(INSTANTS))), strict=True)
    for batch, (kind, lists) in zip(batches, kinds, strict=True):
        batch.assert_sound(unknown=0 if lists and kind != "SIGKILL" else 1, reported_again=1)
    return dict(zip(INSTANTS, firsts, strict=True)), dict(zip(INSTANTS, seconds, strict=True))


def test_each_instant_once(make_batch, at_once) -> None:
    """Each instant with one way to end there; the ways take turns."""
    kinds = [KINDS[number % len(KINDS)] for number in range(len(INSTANTS))]
    firsts, seconds = _end_at_every_instant(make_batch, at_once, kinds)
    assert [ended == "killed" for ended in firsts.values()] == [kind == "SIGKILL" for kind, _ in kinds], firsts
    assert "died" not in firsts.values(), firsts
    assert seconds == dict.fromkeys(INSTANTS, "done")


@pytest.mark.extended
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_instant(make_batch, at_once, kind) -> None:
    """Each instant with each way to end there."""
    firsts, seconds = _end_at_every_instant(make_batch, at_once, [kind] * len(INSTANTS))
    assert {ended == "killed" for ended in firsts.values()} == {kind[0] == "SIGKILL"}, firsts
    assert "died" not in firsts.values(), firsts
    assert seconds == dict.fromkeys(INSTANTS, "done")


@pytest.mark.extended
def test_killed_in_later_runs(make_batch, at_once) -> None:
    """The second and the third run are killed as well, each a little later in its life."""

    def end_at(instant: str) -> None:
        batch = make_batch([f"{instant.replace(' ', '-')}-{name}" for name in "abcd"])
        batch.run(trouble=["after submitting", "SIGKILL"])
        batch.run(trouble=[instant, "SIGKILL"])
        batch.run(trouble=["before done", "SIGKILL"])
        assert batch.run() == "done"
        batch.assert_sound(unknown=3, reported_again=3)

    at_once(end_at, INSTANTS[4:])


@pytest.mark.extended
@pytest.mark.parametrize("lists", [True, False], ids=["with a list", "without"])
def test_killed_at_random(make_batch, at_once, request, lists) -> None:
    """As many kills as ``--kills`` says, half of them here. There are never more unknown submissions than kills."""
    share = request.config.getoption("--kills") // 2 / SERIES

    def kill(series: int) -> None:
        draw = random.Random(f"{lists} {series}")
        kills = number = 0
        while kills < share:
            number += 1
            batch = make_batch([f"{series}-{number}-{n}" for n in range(12)], lists_videos=lists)
            killed = 0
            # A little more time for each run than for the one before, so that a slow machine gets to the end too.
            while batch.run(kill_after=draw.uniform(0, 0.3 + killed / 50)) == "killed":
                killed += 1
            batch.assert_sound(unknown=killed, reported_again=killed)
            kills += killed

    at_once(kill, range(SERIES))


def test_two_processes_on_one_journal(make_batch, fork_server) -> None:
    """The second is refused, and says nothing to the server."""
    batch = make_batch(["a", "b"], render_seconds=4)
    first = {"folder": str(batch.folder), "base_url": batch.service.files_url, "jobs": batch.jobs}
    other = type(fork_server)()
    try:
        other.run(
            folder=str(batch.folder.parent / "other"), base_url=batch.service.files_url, jobs=[]
        )  # until it is ready
        fork_server.begin(first)
        wait_for(batch.service, submits=1)
        refused = other.run(**first)
    finally:
        other.close()
    assert refused["ended"] == "JournalError"
    assert "another process is using" in refused["error"]
    assert fork_server.end()["ended"] == "done"
    batch.assert_sound()


@pytest.mark.extended
def test_each_instant_from_a_text_to_its_video(make_batch, at_once) -> None:
    """A text is synthesized once, and its video submitted once: the next run uses a speech whose URL is in the journal."""
    instants = [f"{when} {state}" for state in ("submitting", "pending", "submitted") for when in ("before", "after")]

    def end_at(number: int) -> None:
        instant, kind = instants[number], ("SIGKILL", "ENOSPC", "SIGKILL", "SIGINT", "SIGKILL", "EIO")[number]
        batch = make_batch([f"{number}-{name}" for name in "ab"])
        assert (batch.run(trouble=[instant, kind], texts=True) == "killed") is (kind == "SIGKILL"), instant
        assert batch.run(texts=True) == "done", instant
        # The response to the request for the speech is not in the journal, which has only its intent.
        batch.assert_sound(unknown=instant == "before pending", reported_again=1)

    at_once(end_at, range(len(instants)))


def test_downloads_interrupted_anywhere(make_batch) -> None:
    """Cut at random bytes again and again, within a run and by a kill: whole files in the end, and none before."""
    draw = random.Random("cut")
    for number in range(4):
        batch = make_batch([f"{number}-{name}" for name in "ab"])
        for _ in range(draw.randrange(1, 5)):
            batch.service.break_off(after=draw.randrange(300_000))
        batch.run(trouble=["after a piece", "SIGKILL"])
        assert not list((batch.folder / "videos").glob("*.mp4"))
        assert batch.run() == "done"
        batch.service.recover()
        batch.assert_sound(reported_again=1)


def test_a_journal_is_read_while_another_process_writes_it(make_batch, fork_server) -> None:
    batch = make_batch(["a", "b"], render_seconds=1)
    fork_server.begin({"folder": str(batch.folder), "base_url": batch.service.files_url, "jobs": batch.jobs})
    wait_for(batch.service, submits=2)
    states = {entry.state for entry in a2v.read_journal(batch.folder / "batch.db")}
    assert states <= {a2v.JobState.SUBMITTED, a2v.JobState.SUBMITTING, a2v.JobState.FINISHED, a2v.JobState.DONE}
    assert fork_server.end()["ended"] == "done"
    batch.assert_sound()


@pytest.mark.extended
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the engine's own
async def test_twelve_recordings_through_the_engine(fork_server, tmp_path) -> None:
    """Real renders of real speech, in a batch that is killed twice on the way: twelve videos that play, twelve submits."""
    clips = sorted(CLIPS.glob("*.flac"))
    recordings = [_short_copy(clips[n % len(clips)], tmp_path / f"{n:02d}.wav", start=n / 10) for n in range(12)]
    order = {"folder": str(tmp_path), "jobs": [path.stem for path in recordings]}
    async with LocalEngine(data_dir=tmp_path / "engine", allow_files=recordings, size=512) as engine:
        order |= {"base_url": engine.base_url, "token": engine.token}
        order["urls"] = {path.stem: path.as_uri() for path in recordings}
        for instant in ("after submitted", "after done"):
            ended = await anyio.to_thread.run_sync(partial(fork_server.run, trouble=[instant, "SIGKILL"], **order))
            assert ended["ended"] == "killed"
        assert (await anyio.to_thread.run_sync(partial(fork_server.run, **order)))["ended"] == "done"
        async with a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client:
            assert len(await client.videos.list()) == 12
    assert {entry.state for entry in a2v.read_journal(tmp_path / "batch.db")} == {a2v.JobState.DONE}
    videos = sorted((tmp_path / "videos").iterdir())
    assert [path.name for path in videos] == [f"{path.stem}.mp4" for path in recordings]
    for video, recording in zip(videos, recordings, strict=True):
        with av.open(str(video)) as film, av.open(str(recording)) as sound:
            frames = sum(1 for _ in film.decode(video=0))
            assert frames / 25 == pytest.approx(sound.duration / av.time_base, abs=0.2)


def _short_copy(clip: Path, path: Path, *, start: float) -> Path:
    """A second of a recording, a different one each time."""
    samples = decode(clip.read_bytes())
    first = int(start * RATE)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples[first : first + RATE] * 32767).astype("<i2").tobytes())
    return path
