"""Bad arguments raise an ``A2VError`` that is also a ``ValueError``, whatever public call gets them.

Each call below has good arguments. The test replaces one argument at a time by each of the bad values. A call may accept some
of them (``None`` is often a default), but not all; what it raises must be a2v's, so that one ``except a2v.A2VError`` is enough.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

import a2v
from a2v import engine, staging, testing

pytestmark = pytest.mark.both_backends

BAD = [None, True, 5, -1, 1.5, 10**400, -(10**400), float("nan"), float("inf"), "", ".", "/", "..", "\0", "\ud800", "x" * 300, b"x", [], [None], {}, {"x": object()}, object()]  # fmt: skip
JOB = a2v.Job("eva_a0008", "https://example.com/a.wav")
VIDEO = a2v.Video(video_id="v", status=a2v.VideoStatus.FINISHED)


def _parameters(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [
        one.name for one in parameters if one.name != "self" and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]


def _values(function: Callable[..., Any], good: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    assert set(good) <= set(_parameters(function)), "the table below names an argument that is not there"
    for name in _parameters(function):
        for value in BAD:
            yield name, {**good, name: value}


class Refusals:
    """The errors of one function, which must be of a2v."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._refusing: set[str] = set()

    def add(self, name: str, arguments: dict[str, Any], error: BaseException) -> None:
        assert isinstance(error, a2v.A2VError), f"{self._function.__qualname__}({arguments!r}) raised {error!r}"
        assert str(error)
        self._refusing.add(name)

    @property
    def lenient(self) -> set[str]:
        """The parameters that have accepted every bad value."""
        return set(_parameters(self._function)) - self._refusing


CONSTRUCTORS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (a2v.AsyncA2V, {"token": "token", "base_url": "http://127.0.0.1:1"}),
    (a2v.A2V, {"token": "token", "base_url": "http://127.0.0.1:1"}),
    (a2v.Job, {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}),
    (a2v.Job, {"pose_id": "p", "audio_url": "https://example.com/a.wav"}),
    (a2v.read_manifest, {"source": [{"model_id": "m", "audio_url": "https://example.com/a.wav"}]}),
    (a2v.read_journal, {"path": "nowhere"}),
    (engine.Settings, {}),
    (engine.LocalEngine, {}),
    (staging.AsyncStager, {"to": "s3://bucket/prefix"}),
    (staging.Stager, {"to": "s3://bucket/prefix"}),
    (staging.stage, {"path": "a.wav", "to": "s3://bucket/prefix"}),
    (testing.Service, {}),
    (testing.FixedWindow, {}),
    (testing.SlidingWindow, {}),
    (testing.TokenBucket, {}),
    (testing.Reply, {}),
    (testing.Reply.refusal, {"status": 400, "message": "no"}),
    (testing.Reply.success, {"data": None}),
    (testing.virtual_time, {}),
]


@pytest.mark.parametrize(("function", "good"), CONSTRUCTORS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_constructors_and_functions(function, good, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refusals = Refusals(function)
    for name, arguments in _values(function, good):
        try:
            function(**arguments)
        except Exception as error:  # noqa: BLE001  # what it is, is asserted
            refusals.add(name, arguments, error)
    assert refusals.lenient == set()


SERVICE_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("server", {}),
    ("seen", {"name": "file"}),
    ("add_video", {"video_id": "v"}),
    ("fail", {}),
    ("refuse", {"name": "video.get"}),
    ("reply", {"name": "video.get", "answer": testing.Reply()}),
    ("lose_reply", {}),
    ("hang", {}),
    ("delay", {"name": "video.get", "seconds": 1.0}),
    ("unreachable", {"name": "video.get"}),
    ("break_off", {}),
    ("recover", {}),
]


@pytest.mark.parametrize(("name", "good"), SERVICE_CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_calls_of_the_scripted_service(name, good) -> None:
    refusals = Refusals(getattr(testing.Service, name))
    for parameter, arguments in _values(getattr(testing.Service, name), good):
        try:
            getattr(testing.Service(), name)(**arguments)
        except Exception as error:  # noqa: BLE001  # what it is, is asserted
            refusals.add(parameter, arguments, error)
    assert refusals.lenient == set()


ASYNC_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("videos.generate", {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}),
    ("videos.generate", {"pose_id": "p", "audio_url": "https://example.com/a.wav"}),
    ("videos.get", {"video_id": "v1"}),
    ("videos.task", {"video_id": "v1"}),
    ("videos.watch", {}),
    ("avatars.poses", {"avatar_id": "a"}),
    ("voices.generate", {"text": "Hello!", "voice_name": "heart"}),
    ("task.watch", {}),
    ("task.wait", {}),
    ("task.download", {"path": "video.mp4"}),
    ("batch", {"jobs": [JOB]}),
]


async def _use(result: Any) -> None:
    """Get from a call what it may raise late: an iterator's values, a batch's outcomes."""
    if inspect.isawaitable(result):
        await result
    elif isinstance(result, a2v.AsyncBatch):
        async with result as batch:
            async for _ in batch:
                pass
    elif inspect.isasyncgen(result):
        async for _ in result:
            pass


def _use_blocking(result: Any) -> None:
    if isinstance(result, a2v.Batch):
        with result as batch:
            for _ in batch:
                pass
    elif hasattr(result, "close"):
        with result:
            list(result)


@pytest.mark.parametrize(("name", "good"), ASYNC_CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_calls_of_the_async_client(name, good, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        service = testing.Service()
        service.add_video("v1")
        async with a2v.AsyncA2V("token", transport=service.transport(), rate_limit=None) as client:
            where: Any = client.videos.task("v1") if name.startswith("task.") else client
            for part in name.removeprefix("task.").split("."):
                where = getattr(where, part)
            refusals = Refusals(where)
            for parameter, arguments in _values(where, good):
                (tmp_path / "video.mp4").unlink(missing_ok=True)
                try:
                    await _use(where(**arguments))
                except Exception as error:  # noqa: BLE001  # what it is, is asserted
                    refusals.add(parameter, arguments, error)
            assert refusals.lenient == set()

    testing.run_in_virtual_time(main)


@pytest.mark.parametrize(("name", "good"), ASYNC_CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_calls_of_the_blocking_client(name, good, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    service = testing.Service()
    service.add_video("v1")
    if name == "batch":
        good = {"jobs": []}  # the first poll of a video comes after half a second of real time
    with a2v.A2V("token", transport=service.transport(), rate_limit=None, max_retries=0) as client:
        where: Any = client.videos.task("v1") if name.startswith("task.") else client
        for part in name.removeprefix("task.").split("."):
            where = getattr(where, part)
        refusals = Refusals(where)
        for parameter, arguments in _values(where, good):
            (tmp_path / "video.mp4").unlink(missing_ok=True)
            try:
                _use_blocking(where(**arguments))
            except Exception as error:  # noqa: BLE001  # what it is, is asserted
                refusals.add(parameter, arguments, error)
        assert refusals.lenient == set()


@pytest.mark.parametrize("bad", [5, None, b"v1", object(), a2v.AsyncA2V])
def test_what_is_no_video_cannot_be_watched(bad) -> None:
    client = a2v.AsyncA2V("token")
    with pytest.raises(a2v.InvalidArgumentError, match="video_id must be"):
        client.videos.watch("v1", bad)
    with a2v.A2V("token") as blocking, pytest.raises(a2v.InvalidArgumentError, match="video_id must be"):
        blocking.videos.watch("v1", bad)


def test_argument_errors_are_value_errors() -> None:
    for call in (
        lambda: a2v.Job("eva_a0008"),  # type: ignore[call-overload]
        lambda: a2v.AsyncA2V("token").videos.task(""),
        lambda: a2v.AsyncA2V("token").batch([5]),  # type: ignore[list-item]
        lambda: a2v.AsyncA2V("token").batch([JOB], max_in_flight=0),
        lambda: a2v.AsyncA2V("token", timeout=True),
        lambda: testing.Service(renderers=0),
    ):
        with pytest.raises(a2v.A2VError) as caught:
            call()
        assert isinstance(caught.value, ValueError)


def test_an_error_of_the_callers_own_jobs_passes_through() -> None:
    def jobs() -> Iterator[a2v.Job]:
        yield JOB
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        a2v.AsyncA2V("token").batch(jobs())


@pytest.mark.anyio
async def test_misuse_is_an_a2v_error_too(anyio_backend) -> None:
    async with a2v.AsyncA2V("token", transport=testing.Service().transport()) as client:
        batch = client.batch([JOB])
        with pytest.raises(a2v.InvalidStateError, match="async with"):
            await anext(batch)
        async with batch:
            pass
        with pytest.raises(a2v.InvalidStateError, match="only be entered once"):
            async with batch:
                pass
    assert issubclass(a2v.InvalidStateError, RuntimeError)


def test_a_manifest_that_cannot_be_read_is_a_fault(tmp_path) -> None:
    with pytest.raises(a2v.ManifestError, match=r"missing\.csv has 1 fault:\n.*No such file"):
        a2v.read_manifest(tmp_path / "missing.csv")


def test_a_path_that_no_file_system_takes_is_refused_before_anything_is_sent() -> None:
    async def main() -> None:
        service = testing.Service()
        service.add_video("v1")
        async with a2v.AsyncA2V("token", transport=service.transport()) as client:
            for path in ("a\0.mp4", "\ud800.mp4", b"a.mp4"):
                with pytest.raises(a2v.InvalidArgumentError, match="path must be"):
                    await client.videos.task("v1").download(path)  # type: ignore[arg-type]
        assert not service.calls

    anyio.run(main)


@pytest.mark.parametrize(
    "value", [10**5000, type("Odd", (), {"__repr__": lambda self: 1 / 0})()], ids=["digits", "odd"]
)
def test_a_value_that_cannot_be_shown(value) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match="limit must be a whole number"):
        a2v.AsyncA2V("token").batch([JOB], limit=value)
