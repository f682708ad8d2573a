"""OpenTelemetry metrics: what is counted and timed, with which attributes, and what never appears in them."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import anyio
import httpx
import pytest

import a2v
from a2v._async.requests import telemetry
from a2v._async.requests.known_videos import KnownVideos

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

SECRETS = ("canary-", "s3cret", "AUDIO-SIGNATURE", "eva_a0008", "//")
JOB = {"model_id": "eva_a0008", "audio_url": "https://audio.example/hello.wav?sig=AUDIO-SIGNATURE"}
ENDED = {
    "finished": {"status": "finished", "video_url": "https://files.example/v.mp4?signature=s3cret"},
    "failed": {"status": "error"},
}


def refused(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": status, "message": "s3cret", "data": None}, headers=headers)


class Metrics:
    """The metrics that were recorded."""

    def __init__(self, reader):
        self._reader = reader
        self.all = {}

    def collect(self):
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                assert (scope.scope.name, scope.scope.version) == ("a2v", a2v.__version__)
                self.all |= {metric.name: metric for metric in scope.metrics}
        return self.all

    def points(self, name):
        metric = self.collect().get(name)
        return metric.data.data_points if metric else []

    def counts(self, name, *attributes):
        """The values of a counter, by the values of its attributes."""
        for point in self.points(name):
            assert set(point.attributes) == set(attributes)
        return {
            point.attributes[attributes[0]] if len(attributes) == 1 else tuple(map(point.attributes.get, attributes)): point.value
            for point in self.points(name)
        }  # fmt: skip

    def outcomes(self, name):
        return self.counts(name, "a2v.outcome")


@pytest.fixture
def metrics(monkeypatch):
    # Not at the top: importing OpenTelemetry turns metrics on, in the tests of other modules too.
    import opentelemetry.metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    # A process can set its provider only once.
    monkeypatch.setattr(opentelemetry.metrics, "get_meter", provider.get_meter)
    telemetry._instruments.cache_clear()
    recorded = Metrics(reader)
    yield recorded
    for metric in recorded.collect().values():
        for point in metric.data.data_points:
            values = [str(value) for value in point.attributes.values()]
            assert "v1" not in values
            assert not any(secret in value for value in values for secret in SECRETS)
    telemetry._instruments.cache_clear()
    provider.shutdown()


# -- requests ---------------------------------------------------------------------------------------------------------


async def test_durations_of_requests_have_the_attributes_of_the_semantic_conventions(
    service, metrics, make_client
) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(3)
        return service.well(request)

    service.replies["character.list"] = [slow]
    async with make_client(base_url="https://api.example:8443/base") as client:
        await client.characters.list()
    (point,) = metrics.points("http.client.request.duration")
    assert (point.count, point.sum) == (1, pytest.approx(3))
    assert dict(point.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "api.example",
        "server.port": 8443,
        "url.template": "/v1/a2v/character.list",
    }
    assert metrics.all["http.client.request.duration"].unit == "s"
    assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (0.005, 10)


async def test_durations_of_failed_requests_have_the_type_of_the_error(service, metrics, make_client) -> None:
    service.replies["video.get"] = [refused(503), httpx.ConnectError("s3cret"), service.well]
    async with make_client() as client:
        await client.videos.get("v1")
    results = [
        (point.attributes.get("http.response.status_code"), point.attributes.get("error.type"))
        for point in metrics.points("http.client.request.duration")
    ]
    assert sorted(results, key=str) == [(200, None), (503, "503"), (None, "TransportError")]


async def test_an_exception_of_a_transport_is_the_type_of_the_error(service, metrics, make_client) -> None:
    service.replies["character.list"] = [ZeroDivisionError("s3cret")]
    async with make_client() as client:
        with pytest.raises(ZeroDivisionError):
            await client.characters.list()
    (point,) = metrics.points("http.client.request.duration")
    assert point.attributes["error.type"] == "ZeroDivisionError"
    assert metrics.points("a2v.requests") == []


async def test_durations_of_file_requests_tell_only_the_server(metrics, make_client, tmp_path) -> None:
    async with make_client() as client:
        await (await client.videos.generate(**JOB)).download(tmp_path / "v.mp4")
    (point,) = [
        point
        for point in metrics.points("http.client.request.duration")
        if point.attributes["server.address"] == "files.example"
    ]
    assert dict(point.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "files.example",
        "server.port": 443,
    }
    assert not any(call == "file" for call, _ in metrics.counts("a2v.requests", "a2v.call", "a2v.outcome"))


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (refused(401), "refused"),
        (refused(404), "refused"),
        (httpx.Response(200, json={"code": 7, "message": "s3cret", "data": None}), "refused"),
        (refused(429), "rate_limited"),
        (httpx.Response(200, json={"code": 1009, "message": "s3cret", "data": None}), "rate_limited"),
        (refused(500), "server_error"),
        (httpx.Response(200, text="<html>s3cret"), "server_error"),
        (httpx.Response(302), "server_error"),
        (httpx.ConnectError("s3cret"), "no_response"),
        (httpx.ReadTimeout("s3cret"), "no_response"),
    ],
    ids=str,
)
async def test_outcomes_of_requests(service, metrics, make_client, reply, outcome) -> None:
    service.replies["character.list"] = [reply]
    async with make_client(max_retries=0) as client:
        with pytest.raises(a2v.A2VError):
            await client.characters.list()
        await client.videos.get("v1")
    assert metrics.counts("a2v.requests", "a2v.call", "a2v.outcome") == {
        ("character.list", outcome): 1,
        ("video.get", "ok"): 1,
    }
    assert metrics.all["a2v.requests"].unit == "{request}"


async def test_cancelled_requests_are_not_recorded(service, metrics, make_client) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()

    service.replies["character.list"] = [never]
    async with make_client(timeout=60) as client:
        with anyio.move_on_after(5):
            await client.characters.list()
    assert not metrics.points("http.client.request.duration")
    assert not metrics.points("a2v.requests")


async def test_waits_for_the_rate_limit_by_kind(service, metrics, make_client) -> None:
    spent = {"x-ratelimit-total": "30", "x-ratelimit-left": "0", "x-ratelimit-reset": "20"}
    service.replies["character.list"] = [httpx.Response(200, json={"code": 0, "data": []}, headers=spent), service.well]
    async with make_client(rate_limit=30) as client:
        await client.characters.list()
        with anyio.move_on_after(5):
            await client.characters.list()
        await client.videos.generate(**JOB)
    waits = {point.attributes["a2v.kind"]: point for point in metrics.points("a2v.rate_limit.wait")}
    assert all(set(point.attributes) == {"a2v.kind"} for point in waits.values())
    assert (waits["call"].count, waits["call"].sum) == (1, 0)  # not the one that was cancelled while it waited
    assert waits["submit"].count == 1
    assert 14.9 < waits["submit"].sum < 20
    assert metrics.all["a2v.rate_limit.wait"].unit == "s"


# -- videos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ENDED)
async def test_a_video_is_counted_once_however_many_wait_for_it(service, metrics, make_client, outcome) -> None:
    service.plan = [(0, {"status": "pending"}), (60, ENDED[outcome])]

    async def follow(task: a2v.AsyncVideoTask) -> None:
        async for _ in task.watch():
            pass

    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(follow, task)
            group.start_soon(partial(follow, client.videos.task(task.video_id)))
        await follow(client.with_options(max_retries=0).videos.task(task.video_id))
        await task.refresh()
    assert metrics.outcomes("a2v.videos") == {outcome: 1}
    assert metrics.all["a2v.videos"].unit == "{video}"


async def test_videos_that_a_list_shows_as_ended_are_counted(service, metrics, make_client) -> None:
    service.lists_videos = True
    service.plans = {f"w{number}": [(0, {"status": "pending"}), (9, ENDED["finished"])] for number in range(40)}
    async with make_client() as client:
        async for _ in client.videos.watch(*service.plans):
            pass
    assert metrics.outcomes("a2v.videos") == {"finished": 40}
    assert service.seen("video.list")


async def test_a_requested_video_counts_once_it_has_ended(service, metrics, make_client) -> None:
    service.plan = [(0, {"status": "pending"}), (1, ENDED["failed"])]
    async with make_client() as client:
        await client.videos.get("v1")
        assert not metrics.points("a2v.videos")
        await anyio.sleep(2)
        await client.videos.get("v1")
        await client.videos.get("v1")
    assert metrics.outcomes("a2v.videos") == {"failed": 1}


def test_a_video_is_counted_once_in_all_event_loops(service, metrics, make_client, run) -> None:
    service.plan = [(0, ENDED["finished"])]
    client = make_client()
    for _ in range(2):
        run(client.videos.get, "v1")
    assert metrics.outcomes("a2v.videos") == {"finished": 1}


async def test_a_video_that_cannot_be_followed_has_not_ended(service, metrics, make_client) -> None:
    service.replies["video.get"] = [refused(401)]
    async with make_client() as client:
        with pytest.raises(a2v.AuthenticationError):
            await client.videos.task("v1").wait()
    assert not metrics.points("a2v.videos")


def test_the_record_of_ended_videos_is_bounded() -> None:
    known = KnownVideos()
    assert all(known.add_ended(str(number)) for number in range(10_001))
    assert not known.add_ended("1")
    assert known.add_ended("0")


# -- submissions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "outcomes"),
    [
        ([], {"accepted": 1}),
        ([refused(429), httpx.ConnectError("s3cret")], {"accepted": 1}),
        ([refused(400)], {"refused": 1}),
        ([refused(401)], {"refused": 1}),
        ([httpx.Response(302)], {"refused": 1}),
        ([refused(500)], {"unknown": 1}),
        ([httpx.ReadError("s3cret")], {"unknown": 1}),
        # The server has neither accepted nor refused the job: it was never there, or may be submitted later.
        ([httpx.ConnectError("s3cret")] * 4, {}),
        ([refused(429)] * 30, {}),
    ],
)
async def test_submissions_by_outcome(service, metrics, make_client, replies, outcomes) -> None:
    service.replies["video.generate"] = [*replies, service.well]
    async with make_client() as client:
        try:
            await client.videos.generate(**JOB)
        except a2v.A2VError:
            assert "accepted" not in outcomes
    assert metrics.outcomes("a2v.submissions") == outcomes
    if outcomes:
        assert metrics.all["a2v.submissions"].unit == "{submission}"


async def test_a_submission_that_was_cancelled_after_it_was_sent_is_unknown(service, metrics, make_client) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()

    service.replies["video.generate"] = [never]
    async with make_client() as client:
        with anyio.move_on_after(5):
            await client.videos.generate(**JOB)
    assert metrics.outcomes("a2v.submissions") == {"unknown": 1}
    assert not metrics.points("a2v.requests")


async def test_a_batch_counts_its_submissions_videos_and_downloads(service, metrics, make_client, tmp_path) -> None:
    service.replies["video.generate"] = [refused(400), service.well]
    service.plan = [(0, {"status": "pending"}), (9, ENDED["finished"])]
    jobs = [a2v.Job("eva_a0008", f"https://audio.example/{number}.wav") for number in range(3)]
    async with make_client() as client, client.batch(jobs, save_to=tmp_path) as batch:
        assert sorted([outcome.ok async for outcome in batch]) == [False, True, True]
    assert metrics.outcomes("a2v.submissions") == {"refused": 1, "accepted": 2}
    assert metrics.outcomes("a2v.videos") == {"finished": 2}
    assert metrics.outcomes("a2v.downloads") == {"finished": 2}


# -- downloads --------------------------------------------------------------------------------------------------------


async def test_downloads_by_outcome_and_their_sizes(service, metrics, make_client, tmp_path) -> None:
    service.plan = [(0, ENDED["finished"])]
    service.replies["v.mp4"] = [httpx.ReadError("s3cret"), service.well, httpx.Response(400)]
    async with make_client() as client:
        await client.videos.task("v1").download(tmp_path / "v.mp4")
        with pytest.raises(a2v.DownloadError):
            await client.videos.task("v1").download(tmp_path / "w.mp4")
    assert metrics.outcomes("a2v.downloads") == {"finished": 1, "failed": 1}
    (size,) = metrics.points("a2v.download.size")
    assert (size.count, size.sum, dict(size.attributes)) == (1, len(service.content), {})
    assert (size.explicit_bounds[0], size.explicit_bounds[-1]) == (65536, 4 * 1024**3)
    units = {name: metrics.all[name].unit for name in ("a2v.downloads", "a2v.download.size")}
    assert units == {"a2v.downloads": "{download}", "a2v.download.size": "By"}


async def test_a_cancelled_download_has_not_failed(service, metrics, make_client, tmp_path) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()

    service.plan = [(0, ENDED["finished"])]
    service.replies["v.mp4"] = [never]
    async with make_client() as client:
        with anyio.move_on_after(5):
            await client.videos.task("v1").download(tmp_path / "v.mp4")
    assert not metrics.points("a2v.downloads")


# -- the use of OpenTelemetry -----------------------------------------------------------------------------------------


def test_the_sync_client_records_the_same(service, metrics) -> None:
    service.plan = [(0, ENDED["finished"])]
    with a2v.A2V("t", rate_limit=None, transport=httpx.MockTransport(service)) as client:
        client.videos.generate(**JOB).wait()
    assert metrics.outcomes("a2v.submissions") == {"accepted": 1}
    assert metrics.outcomes("a2v.videos") == {"finished": 1}
    assert len(metrics.points("http.client.request.duration")) == 2


async def test_metrics_do_not_need_traces(metrics, make_client, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    async with make_client(propagate_trace=True) as client:
        await client.videos.get("v1")
    assert len(metrics.points("http.client.request.duration")) == 1


async def test_nothing_is_recorded_unless_the_metrics_are_imported(
    service, metrics, make_client, monkeypatch, tmp_path
) -> None:
    service.plan = [(0, ENDED["finished"])]
    monkeypatch.delitem(sys.modules, "opentelemetry.metrics")
    async with make_client() as client:
        await (await client.videos.generate(**JOB)).download(tmp_path / "v.mp4")
        service.replies["character.list"] = [refused(401)]
        with pytest.raises(a2v.AuthenticationError):
            await client.characters.list()
    assert metrics.collect() == {}


TRACES_ONLY = """
import sys, anyio, httpx, a2v
from opentelemetry import trace
async def answer(request):
    return httpx.Response(200, json={"code": 0, "data": []})
async def main():
    async with a2v.AsyncA2V("t", transport=httpx.MockTransport(answer)) as client:
        await client.characters.list()
anyio.run(main)
print([name for name in sys.modules if name.startswith(("opentelemetry.metrics", "opentelemetry.propagate"))])
"""


def test_an_application_that_only_traces_does_not_load_metrics() -> None:
    done = subprocess.run([sys.executable, "-c", TRACES_ONLY], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
