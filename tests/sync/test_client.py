"""The generated client, over the real core and a scripted service."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import a2v
from a2v._sync.client import A2V, Batch, VideoTask

LIMIT = 60
AUDIO = "https://example.com/hello.wav"


class Service:
    """Videos are pending for so many looks, then finished, but for two of them."""

    pending = 1

    def __init__(self):
        self.looks = {}
        self.models = []
        self.asked = threading.Event()

    def __call__(self, request):
        self.asked.set()
        path = request.url.path.rpartition("/")[2]
        if request.url.host == "files.example.com":
            return httpx.Response(200, content=b"a video", headers={"content-length": "7"})
        if path == "character.list":
            return self._reply([{"model_id": "eva_a0008", "display_name": "Eva"}])
        if path == "video.generate":
            self.models.append(request.read())
            return self._reply({"video_id": f"video{len(self.models)}"})
        if path == "video.get":
            video_id = request.url.params["video_id"]
            if video_id == "unknown":
                return httpx.Response(200, json={"code": "10001", "message": "file not found", "data": None})
            return self._reply(self._video(video_id))
        return self._reply([self._video(f"video{number + 1}") for number in range(len(self.models))])

    def _video(self, video_id):
        looks = self.looks[video_id] = self.looks.get(video_id, 0) + 1
        if looks <= self.pending:
            return {"video_id": video_id, "status": "pending"}
        if video_id == "fails":
            return {"video_id": video_id, "status": "error"}
        url = f"https://files.example.com/{video_id}.mp4"
        return {"video_id": video_id, "status": "finished", "video_url": url}

    def _reply(self, data):
        return httpx.Response(200, json={"code": 0, "message": "ok", "data": data})


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def client(service):
    transport = httpx.MockTransport(service)
    with A2V("token", base_url="http://127.0.0.1:9", rate_limit=None, transport=transport) as client:
        yield client


def test_characters(client):
    assert [character.model_id for character in client.characters.list()] == ["eva_a0008"]


def test_a_video_from_its_submission_to_its_file(client, tmp_path):
    task = client.videos.generate(model_id="eva_a0008", audio_url=AUDIO)
    assert isinstance(task, VideoTask)
    assert task.video is None
    assert [video.status.value for video in task.watch()] == ["pending", "finished"]
    assert task.video.status is a2v.VideoStatus.FINISHED
    path = task.download(tmp_path / "hello.mp4")
    assert path.read_bytes() == b"a video"


def test_a_task_picked_up_again(client):
    task = client.videos.task("video7")
    assert task.video_id == "video7"
    assert task.refresh().status is a2v.VideoStatus.PENDING
    assert task.wait() == client.videos.get("video7")
    assert repr(task).startswith("<VideoTask video7")


def test_many_at_once_by_task_and_by_id(client):
    task = client.videos.task("one")
    seen = [(video.video_id, video.status.value) for video in client.videos.watch(task, "two")]
    assert sorted(seen) == [("one", "finished"), ("one", "pending"), ("two", "finished"), ("two", "pending")]
    assert task.video.status is a2v.VideoStatus.FINISHED


def test_all_videos_of_the_account(client):
    client.videos.generate(model_id="eva_a0008", audio_url=AUDIO)
    assert [video.video_id for video in client.videos.list()] == ["video1"]


def test_errors_are_those_of_the_async_client(client):
    with pytest.raises(a2v.NotFoundError):
        client.videos.get("unknown")
    with pytest.raises(a2v.VideoFailedError) as caught:
        client.videos.task("fails").wait()
    assert caught.value.video_id == "fails"
    with pytest.raises(ValueError, match="model_id"):
        client.videos.generate(model_id="", audio_url=AUDIO)
    with pytest.raises(a2v.ConfigurationError):
        A2V("", base_url="http://127.0.0.1:9")


def test_a_batch_whose_jobs_use_the_client_themselves(client, tmp_path):
    # A generator of the caller's runs in the caller's thread, where the client may be used.
    jobs = (a2v.Job(client.characters.list()[0].model_id, AUDIO, name) for name in ("a", "b", "c"))
    with client.batch(jobs, save_to=tmp_path) as batch:
        assert isinstance(batch, Batch)
        outcomes = list(batch)
        assert batch.under_way == {}
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]
    assert all(outcome.ok for outcome in outcomes)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4", "c.mp4"}


def test_a_batch_outside_its_context_says_what_to_do(client):
    with pytest.raises(RuntimeError, match="`with` statement"):
        next(iter(client.batch([])))


def test_closed_it_refuses_and_entered_again_it_works(client):
    client.characters.list()
    client.close()
    with pytest.raises(a2v.ClientClosedError):
        client.characters.list()
    with client:
        assert client.characters.list()


def test_one_client_serves_many_threads(client, service):
    service.pending = 0
    with ThreadPoolExecutor(20) as pool:
        tasks = list(pool.map(lambda _: client.videos.generate(model_id="eva_a0008", audio_url=AUDIO), range(60)))
        videos = list(pool.map(VideoTask.wait, tasks))
    assert len({video.video_id for video in videos}) == 60


def test_closing_while_another_thread_waits(client, service):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.videos.task("video1").wait)
        assert service.asked.wait(LIMIT)
        client.close()
        with pytest.raises(a2v.ClientClosedError):
            waiting.result(LIMIT)
