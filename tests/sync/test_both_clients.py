"""The same behaviour of the async and the sync client: one suite runs against both."""

from __future__ import annotations

import inspect

import pytest
from anyio.from_thread import start_blocking_portal

import a2v

pytestmark = pytest.mark.both_backends

AUDIO = "https://example.com/hello.wav"


class Driven:
    """Drives the async client, or an object made by it, with the method names of the sync client."""

    def __init__(self, portal, wrapped):
        self._portal = portal
        self._wrapped = wrapped
        self._contexts = []

    def __repr__(self):
        return repr(self._wrapped)

    def __getattr__(self, name):
        return self._shown(getattr(self._wrapped, {"close": "aclose"}.get(name, name)))

    def _shown(self, value):
        if inspect.ismethod(value):
            return lambda *args, **kwargs: self._called(value, [getattr(arg, "_wrapped", arg) for arg in args], kwargs)
        return Driven(self._portal, value) if type(value).__name__.startswith("Async") else value

    def _called(self, method, args, kwargs):
        if inspect.iscoroutinefunction(method):
            return self._shown(self._portal.call(lambda: method(*args, **kwargs)))
        value = method(*args, **kwargs)
        return iter(Driven(self._portal, value)) if inspect.isasyncgen(value) else self._shown(value)

    def __enter__(self):
        self._contexts.append(self._portal.wrap_async_context_manager(self._wrapped))
        self._contexts[-1].__enter__()
        return self

    def __exit__(self, *exc_info):
        return self._contexts.pop().__exit__(*exc_info)

    def __iter__(self):
        async def step():
            return await anext(self._wrapped, None)

        while (value := self._portal.call(step)) is not None:
            yield value


@pytest.fixture(params=["async on asyncio", "async on trio", "sync"])
def client(request, service):
    if request.param == "sync":
        yield request.getfixturevalue("sync_client")
        return
    wrapped = a2v.AsyncA2V("token", base_url="http://127.0.0.1:9", rate_limit=None, transport=service.transport())
    with start_blocking_portal(request.param.split()[-1]) as portal, Driven(portal, wrapped) as client:
        yield client


def test_characters(client):
    assert [character.model_id for character in client.characters.list()] == ["eva_a0008"]


def test_voices_and_a_video_of_a_text(client, service):
    (heart,) = client.voices.list()
    speech = client.voices.generate(text="Hello!", voice_name=heart.voice_name)
    assert speech.url == service.syntheses[0].url
    task = client.videos.generate(model_id="eva_a0008", text="Bye!", voice_name="heart")
    assert task.wait().is_terminal
    assert [synthesis.text for synthesis in service.syntheses] == ["Hello!", "Bye!"]


def test_avatars_and_a_video_of_one(client, service, tmp_path):
    (mia,) = client.avatars.list()
    assert [pose.pose_id for pose in mia.poses] == ["p1"]
    assert client.avatars.poses(mia.avatar_id) == list(mia.poses)
    task = client.videos.generate(pose_id=mia.poses[0].pose_id, audio_url=AUDIO, with_mask=True)
    assert task.download(tmp_path / "mask.mp4", mask=True).read_bytes() == b"a video"
    assert [call.url.partition("?")[0] for call in service.seen("file")] == ["https://files.example/files/v1-mask.mp4"]
    with pytest.raises(ValueError, match="not both"):
        client.videos.generate(pose_id="p", model_id="m", audio_url=AUDIO)


def test_a_video_from_its_submission_to_its_file(client, tmp_path):
    task = client.videos.generate(model_id="eva_a0008", audio_url=AUDIO)
    assert task.video is None
    assert [video.status.value for video in task.watch()] == ["pending", "finished"]
    assert task.video.status is a2v.VideoStatus.FINISHED
    path = task.download(tmp_path / "hello.mp4")
    assert path.read_bytes() == b"a video"


def test_a_task_picked_up_again(client, service):
    service.add_video("video7", "pending", "finished")
    task = client.videos.task("video7")
    assert task.video_id == "video7"
    assert task.refresh().status is a2v.VideoStatus.PENDING
    assert task.wait() == client.videos.get("video7")
    assert "VideoTask video7" in repr(task)


def test_many_at_once_by_task_and_by_id(client, service):
    service.add_video("one", "pending", "finished")
    service.add_video("two", "pending", "finished")
    task = client.videos.task("one")
    seen = [(video.video_id, video.status.value) for video in client.videos.watch(task, "two")]
    assert sorted(seen) == [("one", "finished"), ("one", "pending"), ("two", "finished"), ("two", "pending")]
    assert task.video.status is a2v.VideoStatus.FINISHED


def test_all_videos_of_the_account(client):
    client.videos.generate(model_id="eva_a0008", audio_url=AUDIO)
    assert [video.video_id for video in client.videos.list()] == ["v1"]


def test_errors(client, service):
    service.add_video("fails", "pending", "error")
    with pytest.raises(a2v.NotFoundError):
        client.videos.get("unknown")
    with pytest.raises(a2v.VideoFailedError) as caught:
        client.videos.task("fails").wait()
    assert caught.value.video_id == "fails"
    with pytest.raises(ValueError, match="model_id"):
        client.videos.generate(model_id="", audio_url=AUDIO)


def test_a_batch_whose_jobs_use_the_client_themselves(client, tmp_path):
    # A generator of the caller's runs in the caller's thread, where the client may be used.
    jobs = (a2v.Job(client.characters.list()[0].model_id, AUDIO, name) for name in ("a", "b", "c"))
    with client.batch(jobs, save_to=tmp_path) as batch:
        outcomes = list(batch)
        assert batch.under_way == {}
        assert batch.downloads == {}
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]
    assert all(outcome.ok for outcome in outcomes)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4", "c.mp4"}


def test_a_batch_shows_its_progress_in_notebooks(client):
    jobs = [a2v.Job("eva_a0008", AUDIO) for _ in range(2)]
    assert "2 waiting of 2" in client.batch(jobs)._repr_html_()
    assert "Batch 0 of 2 done http" in repr(client.batch(jobs))
    with client.batch(jobs) as batch:
        assert all(outcome.ok for outcome in batch)
        assert "2 finished of 2" in batch._repr_html_()
        assert batch.progress == a2v.Progress(total=2, waiting=0, under_way=0, done=2, failed=0, unknown=0)
        assert batch.pace().next_in is None
        assert batch.gone == ()


def test_a_batch_outside_its_context_says_what_to_do(client):
    with pytest.raises(RuntimeError, match="with"):
        next(iter(client.batch([])))


def test_closed_it_refuses_and_entered_again_it_works(client):
    client.characters.list()
    client.close()
    with pytest.raises(a2v.ClientClosedError):
        client.characters.list()
    with client:
        assert client.characters.list()
