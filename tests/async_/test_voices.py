"""Voices, speeches, and videos of texts: nothing is synthesized or submitted twice."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest

import a2v
from a2v._async.batch.journal import Journal
from a2v._async.batch.lock_file import LockFile, RecoveryRecord
from a2v._values.html import card

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

HEART = a2v.Voice(voice_name="heart", gender="female", language="English", locale="en-US", tags=("warm",))
MIKE = a2v.Voice(voice_name="mike", gender="male")
SPEECH_URL = "https://files.example/files/speech1.wav?signature=s3cret"
LOST = httpx.ReadError("lost")
GONE = httpx.Response(403, text="<Error><Code>AccessDenied</Code></Error>")


def job(text: str = "Hello!", voice_name: str = "heart", name: str | None = None) -> a2v.Job:
    return a2v.Job("eva_a0008", text=text, voice_name=voice_name, name=name)


@pytest.fixture
def service(service):
    service.voices = [HEART, MIKE]
    return service


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "batch.db"


@pytest.fixture
def go(make_client, journal, tmp_path):
    """Run a batch; return its outcomes by the texts of its jobs."""

    async def go(*todo, **more):
        settings = {"journal": journal, "save_to": tmp_path / "videos"} | more
        async with make_client() as client, client.batch(todo, **settings) as batch:
            return {outcome.job.text: outcome async for outcome in batch}

    return go


def states(journal: Path) -> list[str]:
    return [entry.state.value for entry in a2v.read_journal(journal)]


def texts(service) -> list[str]:
    return [synthesis.text for synthesis in service.syntheses]


def lose(service):
    def answer(request):
        service.well(request)
        raise LOST

    return answer


# -- voices and speeches ----------------------------------------------------------------------------------------------


async def test_voices(make_client) -> None:
    async with make_client() as client:
        voices = await client.voices.list()
        assert repr(client.voices) == "<AsyncA2V.voices https://openapi.surreal-ai.com>"
    assert voices == [HEART, MIKE]
    assert "mike" in voices._repr_html_()
    assert "en-US" in card(HEART._to_html_view())


@pytest.mark.parametrize(
    ("tags", "read"), [(["warm", " ", "calm "], ("warm", "calm")), ("warm", ("warm",)), ("", ()), (None, ())]
)
async def test_tags_may_be_a_list_or_a_string(service, make_client, tags, read) -> None:
    data = [{"voice_name": "v", "tags": tags, "pitch": 3}]
    service.replies["voice.list"] = [httpx.Response(200, json={"code": 0, "message": "", "data": data})]
    async with make_client() as client:
        (voice,) = await client.voices.list()
    assert (voice.tags, voice.raw["pitch"]) == (read, 3)


@pytest.mark.parametrize("voice", [{"tags": [1], "voice_name": "v"}, {"gender": "female"}, {"voice_name": 5}])
async def test_a_list_that_is_not_the_protocol(service, make_client, voice) -> None:
    service.replies["voice.list"] = [httpx.Response(200, json={"code": 0, "message": "", "data": [voice]})]
    async with make_client(max_retries=0) as client:
        with pytest.raises(a2v.ProtocolError, match="does not follow the protocol"):
            await client.voices.list()


async def test_a_speech(service, make_client) -> None:
    async with make_client() as client:
        speech = await client.voices.generate(text="Hello!", voice_name="heart")
    assert (speech.url, speech.text, speech.voice_name) == (SPEECH_URL, "Hello!", "heart")
    assert speech.raw == {"url": SPEECH_URL}
    assert "s3cret" not in repr(speech)
    (request,) = service.requests
    assert (request.method, request.url.path) == ("POST", "/v1/tts/voice.generate")
    assert json.loads(request.content) == {"text": "Hello!", "voice_name": "heart"}


@pytest.mark.parametrize(
    "words", [None, "Hello!", [{"text": "Hello!"}], [{"text": "a", "start": 2.0, "end": 1.0}], [{"text": 5}], 7]
)
async def test_the_words_of_a_speech(service, make_client, words) -> None:
    """What does not look like words is ignored: the speech may be paid for."""
    data = {"url": SPEECH_URL, "words": [{"text": "Hello!", "start": 0, "end": 0.5}]}
    good, bad = (
        httpx.Response(200, json={"code": 0, "message": "", "data": each}) for each in (data, data | {"words": words})
    )
    service.replies["voice.generate"] = [good, bad]
    async with make_client() as client:
        speech = await client.voices.generate(text="Hello!", voice_name="heart")
        assert speech.words == (a2v.Word(text="Hello!", start=0.0, end=0.5),)
        assert (await client.voices.generate(text="Hello!", voice_name="heart")).words == ()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"text": None}, "text must be the text to be spoken"),
        ({"text": 5}, "text must be the text to be spoken, a string, got 5"),
        ({"text": " \n\u200b"}, "has no visible character"),
        ({"text": "a\x00b"}, "text must not contain"),
        ({"voice_name": None}, "voice_name must be the name of a voice, from voices.list, got None"),
        ({"voice_name": " "}, "voice_name must be the name of a voice"),
        ({"voice_name": "he\u200bart"}, "voice_name must not contain"),
    ],
)
async def test_invalid_arguments(service, make_client, arguments, problem) -> None:
    async with make_client() as client:
        for call, more in ((client.voices.generate, {}), (client.videos.generate, {"model_id": "eva_a0008"})):
            with pytest.raises(a2v.InvalidArgumentError, match=problem) as caught:
                await call(**{"text": "Hello!", "voice_name": "heart"} | arguments, **more)
            assert isinstance(caught.value, ValueError)
            if arguments == {"text": None}:
                break  # for a video, that is one of a recording
    assert not service.requests


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"text": "Hello!", "voice_name": "v", "audio_url": "https://x/a.wav"}, "an audio_url or a text, not both"),
        ({"voice_name": "v", "audio_url": "https://x/a.wav"}, "voice_name requires a text"),
        ({"voice_name": "v"}, "voice_name requires a text"),
        ({"text": "Hello!"}, "voice_name must be the name of a voice"),
        ({}, "audio_url must be the URL of a speech recording, got None"),
    ],
)
def test_jobs_that_contradict_themselves(arguments, problem) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match=problem):
        a2v.Job("eva_a0008", **arguments)


async def test_servers_without_voices(service, make_client, go, journal, check) -> None:
    service.voices = None
    async with make_client() as client:
        for call, request in (
            ("voice.list", client.voices.list()),
            ("voice.generate", client.voices.generate(text="Hello!", voice_name="heart")),
            ("voice.generate", client.videos.generate(model_id="eva_a0008", text="Hello!", voice_name="heart")),
        ):
            with pytest.raises(a2v.NotFoundError, match=f"not (know the voice_name|have the call).*{call}") as caught:
                await request
            check(caught.value)
    seen = await go(job())
    assert isinstance(seen["Hello!"].error, a2v.NotFoundError)
    assert states(journal) == ["rejected"]
    assert not service.submissions


async def test_an_unknown_voice_and_a_long_text(service, make_client) -> None:
    async with make_client() as client:
        with pytest.raises(a2v.NotFoundError, match=r"^there is no voice 'joe'"):
            await client.voices.generate(text="Hello!", voice_name="joe")
        with pytest.raises(a2v.APIError, match="the text has 501 characters, and 500 are allowed"):
            await client.voices.generate(text="a" * 501, voice_name="heart")
    assert not service.syntheses


# -- money ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        LOST,
        httpx.Response(502),
        httpx.Response(409, json={"code": 9, "message": "conflict", "data": None}),
        httpx.Response(200, json={"code": 0, "message": "", "data": {}}),
        httpx.Response(200, json={"code": 0, "message": "", "data": {"url": "ftp://x/a.wav"}}),
        httpx.Response(200, json={"code": 0, "message": "", "data": {"url": "file:///a.wav"}}),
        httpx.Response(200, json={"code": 0, "message": "", "data": {"url": 5}}),
        httpx.Response(200, json={"code": 0, "message": "", "data": "https://x/a.wav"}),
        httpx.Response(200, text="<html>"),
    ],
)
async def test_a_synthesis_that_may_have_arrived_is_never_repeated(service, make_client, check, answer) -> None:
    service.replies["voice.generate"] = [answer]
    async with make_client() as client:
        with pytest.raises(a2v.SubmissionUnknownError, match="may or may not have synthesized this text") as alone:
            await client.voices.generate(text="Hello!", voice_name="heart")
        with pytest.raises(a2v.SubmissionUnknownError, match="may or may not have synthesized this text") as of_video:
            await client.videos.generate(model_id="eva_a0008", text="Hello!", voice_name="heart")
    assert alone.value.job is None
    assert of_video.value.job == job()
    check(alone.value)
    check(of_video.value)
    assert len(service.requests) == 2
    assert not service.submissions


async def test_a_synthesis_that_provably_did_not_happen_is_repeated(service, make_client) -> None:
    service.replies["voice.generate"] = [httpx.ConnectError("down"), httpx.Response(429), service.well]
    async with make_client() as client:
        await client.voices.generate(text="Hello!", voice_name="heart")
    assert len(service.requests) == 3
    assert texts(service) == ["Hello!"]


async def test_a_cancelled_synthesis_says_that_it_may_cost_money(service, make_client, caplog) -> None:
    service.replies["voice.generate"] = [lambda _: anyio.sleep_forever()]
    notes: list[str] = []
    async with make_client() as client:
        with anyio.move_on_after(5):
            try:
                await client.voices.generate(text="Hello!", voice_name="heart")
            except anyio.get_cancelled_exc_class() as error:
                notes = error.__notes__
                raise
    assert "may have synthesized the text" in notes[0]
    assert "voice.generate" in caplog.text


async def test_a_video_of_a_text(service, make_client) -> None:
    async with make_client() as client:
        task = await client.videos.generate(model_id="eva_a0008", text="Hello!", voice_name="heart")
        mask = await client.videos.generate(pose_id="p1", text="Bye!", voice_name="mike", with_mask=True)
        assert (await task.wait()).is_terminal
    assert texts(service) == ["Hello!", "Bye!"]
    assert service.jobs[task.video_id] == {"model_id": "eva_a0008", "audio_url": SPEECH_URL}
    assert service.jobs[mask.video_id]["audio_url"] == SPEECH_URL.replace("1", "2")
    bodies = [json.loads(request.content) for request in service.seen("video.generate")]
    assert bodies[0].keys() == {"model_id", "audio_url"}


async def test_the_speech_of_a_video_that_is_refused_is_not_lost(service, make_client, check) -> None:
    service.replies["video.generate"] = [httpx.Response(400, json={"code": 7, "message": "no", "data": None})]
    async with make_client() as client:
        with pytest.raises(a2v.APIError) as caught:
            await client.videos.generate(model_id="eva_a0008", text="Hello!", voice_name="heart")
    assert caught.value.speech == a2v.Speech(url=SPEECH_URL, text="Hello!", voice_name="heart")
    check(caught.value)
    assert "s3cret" not in json.dumps(caught.value.to_dict())


# -- batches ----------------------------------------------------------------------------------------------------------


async def test_a_batch_of_texts(service, go, journal) -> None:
    seen = await go(job("One.", name="one"), job("Two."), a2v.Job("eva_a0008", "https://x/a.wav"))
    assert [outcome.ok for outcome in seen.values()] == [True] * 3
    assert seen["One."].path.name == "one.mp4"
    assert texts(service) == ["One.", "Two."]
    assert len(service.submissions) == 3
    entry, *_ = a2v.read_journal(journal)
    assert (entry.job.text, entry.job.voice_name, entry.job.audio_url) == ("One.", "heart", None)
    assert await go(job("One.", name="one"), job("Two."), a2v.Job("eva_a0008", "https://x/a.wav")) == {}
    assert len(service.syntheses) == 2


async def test_without_a_journal(service, make_client) -> None:
    async with make_client() as client, client.batch([job("One."), job("Two.")]) as batch:
        assert [outcome.ok async for outcome in batch] == [True, True]
    assert texts(service) == ["One.", "Two."]


async def test_the_signed_url_of_a_speech_does_not_outlive_its_submission(service, go, journal) -> None:
    seen_by_then: list[bool] = []

    def look(request):
        files = [path for path in journal.parent.iterdir() if path.name.startswith("batch.db")]
        seen_by_then.append(any(b"s3cret" in path.read_bytes() for path in files))
        assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in files)
        return service.well(request)

    service.replies["video.generate"] = [look]
    await go(job())
    assert seen_by_then == [True]
    assert b"s3cret" not in journal.read_bytes()
    assert "signature" not in str(a2v.read_journal(journal))


async def between_the_steps(service, go) -> None:
    """End a run in which the text is synthesized, and the server unreachable when the video is submitted."""
    service.replies["video.generate"] = [httpx.ConnectError("down")]
    seen = await go(job())
    assert isinstance(seen["Hello!"].error, a2v.TransportError)
    assert texts(service) == ["Hello!"]
    del service.replies["video.generate"]


async def test_the_next_run_uses_the_speech_of_the_last_one(service, go, journal) -> None:
    await between_the_steps(service, go)
    assert states(journal) == ["pending"]
    assert (await go(job()))["Hello!"].ok
    assert texts(service) == ["Hello!"]
    assert service.jobs["v1"]["audio_url"] == SPEECH_URL
    (head,) = service.seen("speech1.wav")
    assert "authorization" not in head.headers


@pytest.mark.simulation
@pytest.mark.parametrize("answer", [GONE, httpx.Response(404), httpx.Response(302, headers={"location": "/x"})])
async def test_a_speech_that_has_expired_is_made_again(service, go, answer) -> None:
    """A render with its URL would be paid for, and fail."""
    await between_the_steps(service, go)
    service.replies["speech1.wav"] = [answer]
    assert (await go(job()))["Hello!"].ok
    assert texts(service) == ["Hello!", "Hello!"]
    assert service.jobs["v1"]["audio_url"] == SPEECH_URL.replace("1", "2")


@pytest.mark.parametrize("answer", [httpx.ConnectError("down"), httpx.Response(503)])
async def test_an_outage_of_the_storage_is_waited_for(service, go, answer) -> None:
    await between_the_steps(service, go)
    began = anyio.current_time()

    def down(request):
        if anyio.current_time() - began > 300:
            return service.well(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code)

    service.replies["speech1.wav"] = [down]
    assert (await go(job()))["Hello!"].ok
    assert anyio.current_time() - began > 300
    assert texts(service) == ["Hello!"]


async def test_a_local_engine_that_has_another_port_now_has_no_speech(service, go) -> None:
    service.files_url = "http://127.0.0.1:1"
    await between_the_steps(service, go)
    service.replies["speech1.wav"] = [httpx.ConnectError("refused")]
    service.files_url = "http://127.0.0.1:2"
    assert (await go(job()))["Hello!"].ok
    assert len(service.syntheses) == 2


async def test_an_unknown_synthesis_waits_for_the_callers_choice(service, go, journal, check) -> None:
    """No video is searched for, and a video of another program is not matched to it."""
    service.lists_videos = True
    service.replies["voice.generate"] = [lose(service), service.well]
    seen = await go(job("One."), job("Two."))
    assert seen["Two."].ok
    assert "may or may not have synthesized" in str(seen["One."].error)
    check(seen["One."].error)
    assert states(journal) == ["unknown", "done"]
    assert texts(service) == ["One.", "Two."]
    service.plans["of another program"] = [(0, {"status": "pending"})]
    seen = await go(job("One."), job("Two."))
    assert isinstance(seen["One."].error, a2v.SubmissionUnknownError)
    assert "synthesized" in str(seen["One."].error)
    assert len(service.submissions) == 1
    del service.plans["of another program"]
    assert (await go(job("One."), job("Two."), resubmit_unknown=True))["One."].ok
    assert texts(service) == ["One.", "Two.", "One."]


async def test_an_unknown_submission_of_a_text_is_reconciled(service, go) -> None:
    service.lists_videos = True
    service.replies["video.generate"] = [lose(service), service.well]
    assert (await go(job()))["Hello!"].ok
    assert (len(service.syntheses), len(service.submissions)) == (1, 1)


async def test_resubmitting_an_unknown_submission_keeps_the_speech(service, go, journal) -> None:
    service.replies["video.generate"] = [lose(service), service.well]
    seen = await go(job())
    assert "accepted this render" in str(seen["Hello!"].error)
    assert (await go(job(), resubmit_unknown=True))["Hello!"].ok
    assert (len(service.syntheses), len(service.submissions)) == (1, 2)


async def test_resubmitting_a_failed_render_makes_the_speech_again(service, go) -> None:
    service.plans["v1"] = [(0, {"status": "error", "message": "silence"})]
    assert isinstance((await go(job()))["Hello!"].error, a2v.VideoFailedError)
    assert (await go(job(), resubmit_failed=True))["Hello!"].ok
    assert len(service.syntheses) == 2


async def test_a_text_that_is_refused(service, go, journal) -> None:
    seen = await go(job("a" * 501), job("Two."))
    assert "501 characters" in str(seen["a" * 501].error)
    assert seen["Two."].ok
    assert states(journal) == ["rejected", "done"]
    assert set(await go(job("a" * 501), job("Two."), resubmit_failed=True)) == {"a" * 501}
    assert len(service.syntheses) == 1


async def test_an_outage_before_the_synthesis(service, go, journal) -> None:
    service.replies["voice.generate"] = [httpx.ConnectError("down")]
    assert isinstance((await go(job()))["Hello!"].error, a2v.TransportError)
    assert states(journal) == ["pending"]
    del service.replies["voice.generate"]
    assert (await go(job()))["Hello!"].ok
    assert len(service.syntheses) == 1


async def test_a_transport_that_raises_our_error_after_sending(service, go, journal) -> None:
    def fail(request):
        service.well(request)
        raise a2v.TransportError("of a custom transport")

    service.replies["voice.generate"] = [fail]
    assert "synthesized this text" in str((await go(job()))["Hello!"].error)
    assert states(journal) == ["unknown"]


async def test_a_cancelled_run_leaves_an_unknown_synthesis(service, make_client, go, journal) -> None:
    service.replies["voice.generate"] = [lambda _: anyio.sleep_forever(), service.well]
    with anyio.move_on_after(10):
        await go(job())
    assert states(journal) == ["unknown"]
    assert isinstance((await go(job()))["Hello!"].error, a2v.SubmissionUnknownError)
    assert not service.syntheses


class Disk:
    """Fails to write a transition of the journal."""

    def __init__(self, monkeypatch) -> None:
        self.full_at: str | None = None
        real = Journal._set_state

        def set_state(journal, identity, state, *args, **columns):
            instant = "synthesized" if columns.get("speech") else "synthesizing" if "speech" in columns else ""
            if self.full_at and self.full_at == instant:
                raise sqlite3.OperationalError("database or disk is full")
            return real(journal, identity, state, *args, **columns)

        monkeypatch.setattr(Journal, "_set_state", set_state)


async def test_a_full_disk_when_the_speech_arrives(service, go, journal, monkeypatch) -> None:
    """Its URL is in the lock file, whose space is allocated, and the next run takes it from there."""
    disk = Disk(monkeypatch)
    disk.full_at = "synthesized"
    seen = await go(job())
    assert "its URL is noted in" in str(seen["Hello!"].error)
    assert "s3cret" not in str(seen["Hello!"].error)
    disk.full_at = None
    assert states(journal) == ["submitting"]
    assert (await go(job()))["Hello!"].ok
    assert texts(service) == ["Hello!"]
    assert b"s3cret" not in journal.with_name("batch.db.lock").read_bytes()


async def test_a_disk_that_takes_nothing_any_more(service, go, monkeypatch, journal) -> None:
    disk = Disk(monkeypatch)
    disk.full_at = "synthesized"
    monkeypatch.setattr(LockFile, "write_record", lambda *_: False)
    assert "the speech is lost" in str((await go(job()))["Hello!"].error)
    disk.full_at = None
    assert isinstance((await go(job()))["Hello!"].error, a2v.SubmissionUnknownError)
    assert len(service.syntheses) == 1


async def test_a_full_disk_before_the_synthesis(service, go, monkeypatch, journal) -> None:
    disk = Disk(monkeypatch)
    disk.full_at = "synthesizing"
    assert isinstance((await go(job()))["Hello!"].error, a2v.JournalError)
    assert not service.syntheses
    assert states(journal) == ["pending"]


def test_a_recovery_record_of_a_speech(tmp_path) -> None:
    with LockFile(tmp_path / "batch.db") as lock_file:
        record = RecoveryRecord("i-0", SPEECH_URL, is_speech=True)
        assert lock_file.write_record(record)
        assert lock_file.read_record() == record
        assert "s3cret" not in repr(record)
        assert not lock_file.write_record(RecoveryRecord("i-0", SPEECH_URL + "x" * 4096, is_speech=True))
        assert lock_file.read_record() == record


async def test_a_journal_of_version_2_is_migrated(service, go, journal) -> None:
    old = a2v.Job("eva_a0008", "https://x/a.wav")
    await go(old)
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 2")
        db.execute("ALTER TABLE items DROP COLUMN speech")
    assert states(journal) == ["done"]
    assert (await go(old, job()))["Hello!"].ok
    assert len(service.submissions) == 2


async def test_a_damaged_column(go, journal) -> None:
    await go(job())
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("UPDATE items SET speech = x'00'")
    with pytest.raises(a2v.JournalError, match="speech"):
        a2v.read_journal(journal)


# -- identity, limits and quotas --------------------------------------------------------------------------------------


async def test_the_voice_and_the_text_make_the_job(service, go) -> None:
    await go(job("One."))
    await go(job("One."), job("One.", "mike"), job("One!"))
    assert [(synthesis.text, synthesis.voice_name) for synthesis in service.syntheses] == [
        ("One.", "heart"),
        ("One.", "mike"),
        ("One!", "heart"),
    ]


async def test_a_changed_text_under_an_existing_name_is_refused(service, go) -> None:
    await go(job("One.", name="one"))
    seen = await go(job("One, two.", name="one"))
    assert "the text or voice of 'one' has changed" in str(seen["One, two."].error)
    assert (await go(job("One, two.", name="one"), overwrite=True))["One, two."].ok
    seen = await go(a2v.Job("eva_a0008", "https://x/a.wav", "one"))
    assert "the text or voice of 'one' has changed" in str(seen[None].error)
    assert len(service.syntheses) == 2


async def test_a_changed_character_under_an_existing_name_is_refused(go) -> None:
    await go(job("One.", name="one"))
    seen = await go(a2v.Job("mia", text="One.", voice_name="heart", name="one"))
    assert "the character, pose, mask or options of 'one' has changed" in str(seen["One."].error)


async def test_speeches_count_against_the_quota(service, go) -> None:
    todo = [job("One."), a2v.Job("eva_a0008", "https://x/a.wav"), job("Two.")]
    message = r"submit 3 videos and have 2 texts synthesized, and the quota is 4.*limit=2 "
    with pytest.raises(a2v.ConfigurationError, match=message):
        await go(*todo, quota=4)
    with pytest.raises(a2v.ConfigurationError, match=r"submit 1 video and have 1 text synthesized.*limit=0 "):
        await go(job("One."), quota=1)
    assert not service.requests
    assert len(await go(*todo, quota=5)) == 3


async def test_a_speech_that_exists_does_not_count(service, go) -> None:
    await between_the_steps(service, go)
    assert (await go(job(), quota=1))["Hello!"].ok
