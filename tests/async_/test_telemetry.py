"""What can be watched from outside: log lines and spans, whole, rightly nested, and without a secret."""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import partial

import anyio
import httpx
import pytest

import a2v
from a2v._async.requests import telemetry

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

SECRETS = ("canary-", "s3cret", "AUDIO-SIGNATURE")
JOB = {"model_id": "eva_a0008", "audio_url": "https://audio.example/hello.wav?sig=AUDIO-SIGNATURE"}


FINISHED = {"status": "finished", "video_url": "https://files.example/v.mp4?signature=s3cret"}


def refused(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": status, "message": "s3cret", "data": None}, headers=headers)


# -- spans ------------------------------------------------------------------------------------------------------------


class Spans:
    """What was recorded, as a tree of names."""

    def __init__(self, exporter, tracer):
        self._exporter = exporter
        self.tracer = tracer

    @property
    def all(self):
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name):
        return [span for span in self.all if span.name == name]

    def one(self, name):
        (span,) = self.named(name)
        return span

    def children(self, parent):
        return [span for span in self.all if span.parent and span.parent.span_id == parent.context.span_id]

    def tree(self, span):
        below = [self.tree(child) for child in self.children(span)]
        return (span.name, below) if below else span.name


@pytest.fixture(scope="module")
def recorder():
    # Not above: whoever does not import it is not traced, as the tests of the other modules.
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process has one provider for good; that of these tests must not be the others'.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer_provider", lambda: provider)
        telemetry._tracer.cache_clear()
        yield Spans(exporter, trace.get_tracer("user"))
        telemetry._tracer.cache_clear()
    provider.shutdown()


@pytest.fixture
def spans(recorder):
    recorder._exporter.clear()
    yield recorder
    for span in recorder.all:
        told = [span.to_json(), *(event.name + str(dict(event.attributes)) for event in span.events)]
        assert not any(secret in text for text in told for secret in SECRETS), told


async def test_a_video_from_its_submission_to_its_file(spans, make_client, tmp_path) -> None:
    async with make_client() as client:
        with spans.tracer.start_as_current_span("user"):
            task = await client.videos.generate(**JOB)
            await task.download(tmp_path / "v.mp4")
    get = "GET /v1/a2v/video.get"
    name, (generate, (watch, looks), download) = spans.tree(spans.one("user"))
    assert name == "user"
    assert generate == ("a2v.video.generate", ["POST /v1/a2v/video.generate"])
    assert watch == "a2v.watch"
    assert set(looks) == {get}
    assert download == ("a2v.download", ["GET"])
    assert len(spans.all) == 6 + len(looks)


async def test_the_attributes_of_a_request_span(spans, make_client) -> None:
    from opentelemetry.trace import SpanKind

    async with make_client(base_url="https://api.example/base") as client:
        await client.videos.get("v1")
    request = spans.one("GET /v1/a2v/video.get")
    assert request.kind is SpanKind.CLIENT
    assert dict(request.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "api.example",
        "server.port": 443,
        "url.full": "https://api.example/base/v1/a2v/video.get",
        "url.path": "/base/v1/a2v/video.get",
        "url.scheme": "https",
        "url.template": "/v1/a2v/video.get",
        "a2v.video_id": "v1",
    }
    assert dict(spans.one("a2v.video.get").attributes) == {"a2v.video_id": "v1"}


async def test_request_spans_have_the_servers_id_of_the_request(service, spans, make_client) -> None:
    service.replies["character.list"] = [refused(503, **{"x-request-id": "req-1"}), refused(401, **{"cf-ray": "req-2"})]
    async with make_client() as client:
        with pytest.raises(a2v.AuthenticationError):
            await client.characters.list()
    requests = spans.named("GET /v1/a2v/character.list")
    assert [span.attributes["a2v.request_id"] for span in requests] == ["req-1", "req-2"]


async def test_the_attributes_of_submission_and_download_spans(spans, make_client, tmp_path) -> None:
    async with make_client() as client:
        task = await client.videos.generate(pose_id="p1", audio_url=JOB["audio_url"], with_mask=True)
        await task.download(tmp_path / "v.mp4")
    assert dict(spans.one("a2v.video.generate").attributes) == {"a2v.pose_id": "p1", "a2v.video_id": "v1"}
    assert dict(spans.one("a2v.download").attributes) == {"a2v.video_id": "v1"}
    # The URL is signed, so nothing of it but the server.
    assert dict(spans.one("GET").attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "files.example",
        "server.port": 443,
        "url.scheme": "https",
    }


async def test_a_watch_span_has_an_event_for_each_change(spans, make_client) -> None:
    async with make_client() as client:
        await (await client.videos.generate(**JOB)).wait()
    watch = spans.one("a2v.watch")
    assert dict(watch.attributes) == {"a2v.videos": 1, "a2v.video_id": "v1"}
    assert [dict(event.attributes) for event in watch.events] == [
        {"a2v.video_id": "v1", "a2v.status": status} for status in ("pending", "in_progressing", "finished")
    ]


async def test_polls_belong_to_the_watch_of_their_video(spans, make_client) -> None:
    """Whoever waits sends for all, but to those who trace the looks at a video are its watch's."""
    async with make_client() as client:

        async def follow(video_id: str) -> None:
            with spans.tracer.start_as_current_span(f"user of {video_id}"):
                await client.videos.task(video_id).wait()

        async with anyio.create_task_group() as tasks:
            for video_id in ("a", "b", "c"):
                tasks.start_soon(follow, video_id)
    for video_id in ("a", "b", "c"):
        (watch,) = spans.children(spans.one(f"user of {video_id}"))
        assert watch.attributes["a2v.video_id"] == video_id
        looks = [look for look in spans.children(watch) if look.name.endswith("video.get")]
        assert len(looks) > 3
        assert {look.attributes["a2v.video_id"] for look in looks} == {video_id}


async def test_polls_of_all_videos_belong_to_a_watch_of_them(service, spans, make_client) -> None:
    service.lists_videos = True
    service.plans = {f"v{number}": service.plan for number in range(40)}
    async with make_client() as client:
        async for _ in client.videos.watch(*service.plans):
            pass
    (watch,) = spans.named("a2v.watch")
    assert dict(watch.attributes) == {"a2v.videos": 40}
    lists = spans.named("GET /v1/a2v/video.list")
    assert lists
    assert {look.parent.span_id for look in lists} == {watch.context.span_id}


async def test_a_batch_holds_all_that_its_tasks_do(spans, make_client, tmp_path) -> None:
    jobs = [a2v.Job("m", f"https://audio.example/{number}.wav?sig=AUDIO-SIGNATURE") for number in range(3)]
    async with make_client() as client, client.batch(jobs, save_to=tmp_path) as batch:
        async for outcome in batch:
            assert outcome.ok
            with spans.tracer.start_as_current_span("user, between two outcomes"):
                pass
    whole = spans.one("a2v.batch")
    assert dict(whole.attributes) == {"a2v.jobs": 3}
    below = [span.name for span in spans.children(whole)]
    assert sorted(set(below)) == ["a2v.download", "a2v.video.generate", "a2v.watch"]
    assert len(below) == 9
    # The batch is not left as the current span where its outcomes are used.
    assert all(span.parent is None for span in spans.named("user, between two outcomes"))


async def test_each_try_is_a_request_and_the_call_is_one(service, spans, make_client) -> None:
    from opentelemetry.trace import StatusCode

    service.replies["video.get"] = [refused(503), httpx.ConnectError("s3cret"), service.well]
    async with make_client() as client:
        await client.videos.get("v")
    call = spans.one("a2v.video.get")
    assert call.status.status_code is StatusCode.UNSET
    tries = spans.children(call)
    assert [span.attributes.get("error.type") for span in tries] == ["503", "TransportError", None]
    assert [span.status.status_code for span in tries] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]


async def test_a_call_that_fails(service, spans, make_client) -> None:
    service.replies["character.list"] = [refused(401)]
    async with make_client() as client:
        with pytest.raises(a2v.AuthenticationError):
            await client.characters.list()
    assert spans.one("a2v.character.list").attributes["error.type"] == "AuthenticationError"
    assert spans.one("GET /v1/a2v/character.list").attributes["error.type"] == "401"


async def test_a_watch_that_fails(service, spans, make_client) -> None:
    async with make_client() as client:
        with pytest.raises(a2v.WaitTimeoutError):
            await client.videos.task("v").wait(timeout=10)
        service.replies["video.get"] = [refused(401)]
        with pytest.raises(a2v.AuthenticationError):
            await client.videos.task("v").wait()
    kinds = [span.attributes["error.type"] for span in spans.named("a2v.watch")]
    assert kinds == ["WaitTimeoutError", "AuthenticationError"]


async def test_a_download_that_fails(service, spans, make_client, tmp_path) -> None:
    service.plan = [(0, FINISHED)]
    service.replies["v.mp4"] = [httpx.ReadError("s3cret"), httpx.Response(400)]
    async with make_client() as client:
        with pytest.raises(a2v.DownloadError):
            await client.videos.task("v").download(tmp_path / "v.mp4")
    download = spans.one("a2v.download")
    assert download.attributes["error.type"] == "DownloadError"
    assert [span.attributes["error.type"] for span in spans.children(download)] == ["TransportError", "400"]


@pytest.mark.parametrize("url", ["https://[::1/v.mp4", "https://h:port/v.mp4"])
async def test_a_url_that_is_none(service, spans, make_client, tmp_path, url) -> None:
    service.plan = [(0, FINISHED | {"video_url": url})]
    async with make_client(max_retries=0) as client:
        with pytest.raises(a2v.DownloadError):
            await client.videos.task("v").download(tmp_path / "v.mp4")
    assert dict(spans.one("GET").attributes) == {"http.request.method": "GET", "error.type": "TransportError"}


async def test_to_lose_interest_is_no_failure(service, spans, make_client) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()

    service.replies["character.list"] = [never]
    async with make_client() as client:
        with anyio.move_on_after(5):
            await client.characters.list()
        with anyio.move_on_after(5):
            await client.videos.task("v").wait()
    ended = spans.one("a2v.character.list"), spans.one("GET /v1/a2v/character.list"), spans.one("a2v.watch")
    assert not any("error.type" in span.attributes for span in ended)


def test_the_blocking_client_carries_the_span_over_to_its_thread(spans, service) -> None:
    service.plan = [(0, FINISHED)]
    with a2v.A2V("t", rate_limit=None, transport=httpx.MockTransport(service)) as client:
        with spans.tracer.start_as_current_span("user"):
            client.characters.list()
            for _ in client.videos.watch("v"):
                pass
        jobs = [a2v.Job("m", JOB["audio_url"])]
        with spans.tracer.start_as_current_span("other"), client.batch(jobs) as batch:
            assert [outcome.ok for outcome in batch] == [True]
    assert [span.name for span in spans.children(spans.one("user"))] == ["a2v.character.list", "a2v.watch"]
    assert [span.name for span in spans.children(spans.one("other"))] == ["a2v.batch"]


# -- the trace context ------------------------------------------------------------------------------------------------


def traceparents(requests):
    return [request.headers.get("traceparent") for request in requests]


def id_of(span) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


async def test_the_trace_is_not_sent_by_default(service, spans, make_client, tmp_path) -> None:
    async with make_client() as client:
        await (await client.videos.generate(**JOB)).download(tmp_path / "v.mp4")
    assert set(traceparents(service.requests)) == {None}


async def test_requests_carry_the_trace_if_asked_to(service, spans, make_client, tmp_path) -> None:
    from opentelemetry import baggage, context

    attached = context.attach(baggage.set_baggage("user", "u 7"))
    async with make_client(propagate_trace=True) as client:
        task = await client.with_options(timeout=5, headers={"x-key": "k"}).videos.generate(**JOB)
        await task.download(tmp_path / "v.mp4")
    context.detach(attached)
    (post,) = service.seen("video.generate")
    assert post.headers["x-key"] == "k"
    assert post.headers["baggage"] == "user=u+7"
    assert traceparents([post]) == [id_of(spans.one("POST /v1/a2v/video.generate"))]
    polls = spans.named("GET /v1/a2v/video.get")
    assert sorted(traceparents(service.seen("video.get"))) == sorted(map(id_of, polls))
    # The hosts of files are other companies' servers.
    (file,) = service.seen("v.mp4")
    assert not {"traceparent", "baggage", "authorization"} & set(file.headers)


async def test_the_headers_of_the_caller_win_over_those_of_the_trace(service, spans, make_client) -> None:
    async with make_client(propagate_trace=True, default_headers={"Traceparent": "mine"}) as client:
        await client.characters.list()
    assert traceparents(service.requests) == ["mine"]


async def test_no_trace_is_sent_without_opentelemetry(service, make_client, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    async with make_client(propagate_trace=True) as client:
        await client.characters.list()
    assert traceparents(service.requests) == [None]


async def test_a_propagator_cannot_replace_the_clients_own_headers(service, spans, make_client, monkeypatch) -> None:
    from opentelemetry import propagate

    monkeypatch.setattr(propagate, "inject", lambda headers: headers.update({"Authorization": "s3cret"}))
    async with make_client(propagate_trace=True) as client:
        with pytest.raises(
            a2v.ConfigurationError, match=r"propagate_trace: .* must not contain Authorization"
        ) as caught:
            await client.characters.list()
    assert "s3cret" not in str(caught.value)
    assert service.requests == []


def test_the_sync_client_sends_the_callers_trace(service, spans) -> None:
    client = a2v.A2V("t", rate_limit=None, propagate_trace=True, transport=httpx.MockTransport(service))
    with client, spans.tracer.start_as_current_span("user") as user:
        client.characters.list()
    (sent,) = traceparents(service.requests)
    assert f"{user.get_span_context().trace_id:032x}" in sent


def test_propagate_trace_is_a_boolean() -> None:
    with pytest.raises(a2v.ConfigurationError, match="propagate_trace must be True or False, got 'no'"):
        a2v.AsyncA2V("t", propagate_trace="no")


# -- without OpenTelemetry --------------------------------------------------------------------------------------------

NOT_USED = """
import sys, anyio, httpx, a2v
async def answer(request):
    return httpx.Response(200, json={"code": 0, "data": []})
async def main():
    async with a2v.AsyncA2V("t", transport=httpx.MockTransport(answer)) as client:
        await client.characters.list()
anyio.run(main)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_who_does_not_use_it_does_not_pay_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", NOT_USED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# -- log lines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "a2v")
    yield lambda: [record.getMessage() for record in caplog.records if record.name.startswith("a2v")]
    assert not any(secret in caplog.text for secret in SECRETS)


async def test_the_log_of_a_video(log, make_client, tmp_path) -> None:
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        await task.download(tmp_path / "v.mp4")
    assert log() == [
        "video v1: submitted for eva_a0008",
        "video v1: pending",
        "video v1: in_progressing",
        "video v1: finished",
        "video v1: saved",
    ]


async def test_a_change_is_logged_once_regardless_of_watchers(log, make_client) -> None:
    async with make_client() as client, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(partial(client.videos.task("v").wait, timeout=None))
    assert log() == ["video v: pending", "video v: in_progressing", "video v: finished"]


async def test_rate_limit_waits_are_logged(service, log, make_client) -> None:
    spent = {"x-ratelimit-total": "30", "x-ratelimit-left": "0", "x-ratelimit-reset": "20"}
    service.replies["character.list"] = [httpx.Response(200, json={"code": 0, "data": []}, headers=spent)]
    async with make_client(rate_limit=30) as client:
        await client.characters.list()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.characters.list)
            tasks.start_soon(client.characters.list)
    first, second = log()  # one line for each request that waits, and not for each time that somebody looks
    assert first.startswith("rate limit reached: the next request is sent in 2")
    assert second.startswith("rate limit reached")


async def test_retries_and_ended_watches_are_logged(service, log, make_client) -> None:
    service.replies["character.list"] = [refused(503), service.well]
    service.replies["video.get"] = [refused(401)]
    async with make_client() as client:
        await client.characters.list()
        with pytest.raises(a2v.AuthenticationError):
            await client.videos.task("v").wait()
    assert log() == ["character.list: ServerError, trying again", "video v: AuthenticationError"]


def test_it_is_silent_by_default() -> None:
    code = "import logging, a2v; logging.getLogger('a2v.engine').error('told to nobody')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_message_with_named_arguments_passes(caplog) -> None:
    """An application may log through the logger of the client, in any of the ways of ``logging``."""
    with caplog.at_level("INFO", "a2v.client"):
        logging.getLogger("a2v.client").info("%(what)s", {"what": "one\ntwo"})
    assert caplog.messages == ["one\ntwo"]


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_watches_work_without_it(make_client, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    async with make_client() as client:
        task = await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/hello.wav")
        with pytest.raises(a2v.WaitTimeoutError):
            await task.wait(timeout=5)
        assert (await task.wait()).status is a2v.VideoStatus.FINISHED
