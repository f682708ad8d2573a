"""The recipes for task queues and workflow engines, run by Celery, Prefect and Temporal: none of them submits twice."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import a2v
from a2v.testing import Server, Service

EXAMPLES = Path(__file__).parents[1] / "examples"
AUDIO = "https://example.com/hello.wav"

pytestmark = [
    pytest.mark.extended,
    # Prefect leaves connections to its own server open.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def folder(a2v_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder in which the recipes can be imported and find the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    return tmp_path


@pytest.fixture
def order() -> int:
    """The number of a new order."""
    number: int = importlib.import_module("orders").add("eva_a0008", AUDIO)
    return number


def recipe(name: str) -> Any:
    """Import a recipe as a new process would."""
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("videos/*.mp4"))


def crash_while_submitting(service: Service, submit: str) -> None:
    """Kill a process as soon as the server has accepted what it submits, before the response arrives."""
    service.hang()
    with subprocess.Popen([sys.executable, "-c", submit], env=os.environ | {"PYTHONPATH": str(EXAMPLES)}) as process:
        wait_until(lambda: service.submissions or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# -- Celery -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def celery_worker() -> Iterator[Any]:
    """The tasks, and a worker of Celery that runs them. Retries do not wait."""
    pytest.importorskip("celery")
    from celery.contrib.testing.worker import start_worker

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        tasks: Any = importlib.import_module("celery_tasks")
    tasks.app.conf.update(broker_url="memory://", result_backend="cache+memory://")
    tasks.submit.retry_backoff = tasks.follow.default_retry_delay = 0
    with start_worker(tasks.app, perform_ping_check=False):
        yield tasks
    tasks.app.close()


@pytest.fixture
def celery(celery_worker: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The tasks, with a client for this test."""
    with a2v.A2V(max_retries=0) as client:
        monkeypatch.setattr(celery_worker, "client", lambda: client)
        yield celery_worker


def fails_as_unknown(result: Any) -> bool:
    # The result backend has only the name of the class.
    with pytest.raises(Exception, match="SubmissionUnknownError"):
        result.get(timeout=60)
    return True


def test_celery_delivers_a_message_twice_and_submits_once(
    celery: Any, order: int, a2v_service: Service, folder: Path
) -> None:
    celery.submit.delay(order).get(timeout=60)
    celery.submit.delay(order).get(timeout=60)
    wait_until(lambda: saved(folder) == ["v1.mp4"])
    assert len(a2v_service.submissions) == 1


def test_celery_retries_what_was_not_submitted(celery: Any, order: int, a2v_service: Service, folder: Path) -> None:
    a2v_service.refuse("video.generate", 429)
    celery.submit.delay(order).get(timeout=60)
    wait_until(lambda: saved(folder) == ["v1.mp4"])
    assert len(a2v_service.submissions) == 1


def test_celery_does_not_retry_an_unknown_submission(celery: Any, order: int, a2v_service: Service) -> None:
    from celery.signals import task_retry

    retries: list[object] = []
    task_retry.connect(lambda **details: retries.append(details), weak=False, dispatch_uid="retries")
    a2v_service.lose_reply()
    assert fails_as_unknown(celery.submit.delay(order))
    assert fails_as_unknown(celery.submit.delay(order))
    assert task_retry.disconnect(dispatch_uid="retries")
    assert retries == []
    assert len(a2v_service.seen("video.generate")) == len(a2v_service.submissions) == 1


def test_celery_waits_again_after_a_timeout(
    celery: Any, a2v_service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery, "WAIT_SECONDS", 0.3)
    a2v_service.add_video("v7", *["pending"] * 3, "finished")
    celery.follow.delay("v7").get(timeout=60)
    assert saved(folder) == ["v7.mp4"]
    assert not a2v_service.submissions


def test_celery_runs_a_task_of_a_killed_worker_again_and_submits_once(
    celery: Any, order: int, a2v_service: Service
) -> None:
    crash_while_submitting(a2v_service, f"import celery_tasks; celery_tasks.submit.run({order})")
    assert fails_as_unknown(celery.submit.delay(order))
    assert len(a2v_service.seen("video.generate")) == len(a2v_service.submissions) == 1


# -- Prefect ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    os.environ |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    pytest.importorskip("prefect", reason="Prefect is not installed; `nox -s recipes` installs it")
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
    gc.collect()  # while their warnings are ignored


@pytest.fixture
def prefect(prefect_server: None) -> ModuleType:
    """The flow. Retries do not wait."""
    flow = recipe("prefect_flow")
    client = a2v.AsyncA2V(max_retries=0)
    flow.client = lambda: client
    flow.submit.retry_delay_seconds = flow.follow.retry_delay_seconds = 0
    return flow


def test_a_prefect_flow_runs_twice_and_submits_once(
    prefect: Any, order: int, a2v_service: Service, folder: Path
) -> None:
    for _ in range(2):
        assert asyncio.run(prefect.make_video(order)) == str(folder / "videos/v1.mp4")
    assert len(a2v_service.submissions) == 1


def test_prefect_retries_what_was_not_submitted(
    prefect: Any, order: int, a2v_service: Service, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a2v_service.refuse("video.generate", 429)
    assert asyncio.run(prefect.make_video(order)) == str(folder / "videos/v1.mp4")
    assert "Retry 1/20 will start" in caplog.text
    assert len(a2v_service.submissions) == 1


def test_prefect_does_not_retry_an_unknown_submission(
    prefect: Any, order: int, a2v_service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    a2v_service.lose_reply()
    for _ in range(2):
        with pytest.raises(a2v.SubmissionUnknownError):
            asyncio.run(prefect.make_video(order))
    assert "will start" not in caplog.text  # "Retry 1/20 will start …"
    assert len(a2v_service.seen("video.generate")) == len(a2v_service.submissions) == 1


def test_a_prefect_flow_starts_again_after_a_crash_and_submits_once(
    prefect: Any, order: int, a2v_service: Service
) -> None:
    crash_while_submitting(a2v_service, f"import asyncio, prefect_flow; asyncio.run(prefect_flow.submit.fn({order}))")
    with pytest.raises(a2v.SubmissionUnknownError):
        asyncio.run(prefect.make_video(order))
    assert len(a2v_service.seen("video.generate")) == len(a2v_service.submissions) == 1


# -- Temporal ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def temporal() -> ModuleType:
    pytest.importorskip("temporalio")
    return recipe("temporal_activity")


def run_activity(
    recipe: Any, name: str, *arguments: Any, heartbeat_details: tuple[Any, ...] = ()
) -> tuple[Any, list[Any]]:
    """Run an attempt of an activity and return its result and its heartbeats."""
    from temporalio.testing import ActivityEnvironment

    async def main() -> Any:
        async with a2v.AsyncA2V(max_retries=0) as client:
            return await environment.run(getattr(recipe.Videos(client), name), *arguments)

    heartbeats: list[Any] = []
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, heartbeat_details=heartbeat_details)
    environment.on_heartbeat = lambda *details: heartbeats.append(details)
    return asyncio.run(main()), heartbeats


def test_temporal_runs_an_activity_again_and_submits_once(
    temporal: Any, order: int, a2v_service: Service, folder: Path
) -> None:
    a2v_service.poll_statuses = ["pending", "in_progressing", "finished"]
    for _ in range(2):
        run_activity(temporal, "submit", order)
    path, heartbeats = run_activity(temporal, "follow", order)
    assert path == str(folder / "videos/v1.mp4")
    assert [status for _, status in heartbeats if status] == ["pending", "in_progressing", "finished"]
    assert {video_id for video_id, _ in heartbeats} == {"v1"}
    assert len(a2v_service.submissions) == 1


def test_temporal_gets_heartbeats_while_the_status_does_not_change(
    temporal: Any, order: int, a2v_service: Service
) -> None:
    a2v_service.poll_statuses = ["pending", "pending", "finished"]
    run_activity(temporal, "submit", order)
    temporal.HEARTBEAT_SECONDS = 0.001
    _, heartbeats = run_activity(temporal, "follow", order)
    assert heartbeats.count(("v1", "pending")) > 2


def test_the_temporal_workflow_runs_in_its_sandbox(temporal: Any) -> None:
    """Replay a history that ends after the submission: the workflow's next command is the wait."""
    from temporalio.client import WorkflowHistory
    from temporalio.worker import Replayer

    run = {"workflowType": {"name": "MakeVideo"}, "taskQueue": {"name": "videos"}, "originalExecutionRunId": "r"}
    argument = {"payloads": [{"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "MQ=="}]}

    def turn(number: int) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("WorkflowTaskScheduled", {"taskQueue": {"name": "videos"}, "attempt": 1}),
            ("WorkflowTaskStarted", {"scheduledEventId": str(number)}),
            ("WorkflowTaskCompleted", {"scheduledEventId": str(number), "startedEventId": str(number + 1)}),
        ]

    def scheduled(activity: str, activity_id: str, turn_completed: str) -> tuple[str, dict[str, Any]]:
        attributes = {"activityId": activity_id, "activityType": {"name": activity}}
        return "ActivityTaskScheduled", attributes | {"workflowTaskCompletedEventId": turn_completed}

    events = [
        ("WorkflowExecutionStarted", run | {"input": argument}),
        *turn(2),
        scheduled("submit", "1", "4"),
        ("ActivityTaskStarted", {"scheduledEventId": "5"}),
        ("ActivityTaskCompleted", {"scheduledEventId": "5", "startedEventId": "6"}),
        *turn(8),
        scheduled("follow", "2", "10"),
    ]
    history = {
        "events": [
            {
                "eventId": str(number),
                "eventTime": "2026-01-01T00:00:00Z",
                "eventType": re.sub(r"(?<!^)(?=[A-Z])", "_", f"EventType{kind}").upper(),
                kind[0].lower() + kind[1:] + "EventAttributes": attributes,
            }
            for number, (kind, attributes) in enumerate(events, 1)
        ]
    }
    replayer = Replayer(workflows=[temporal.MakeVideo])
    recorded = WorkflowHistory.from_json("order-1", history)
    replayed = asyncio.run(replayer.replay_workflow(recorded, raise_on_replay_failure=False))
    assert replayed.replay_failure is None


def test_temporal_resumes_from_the_heartbeat_of_a_lost_worker(
    temporal: Any, a2v_service: Service, folder: Path
) -> None:
    a2v_service.add_video("v7", "in_progressing", "finished")
    unknown_order = 99
    path, heartbeats = run_activity(temporal, "follow", unknown_order, heartbeat_details=("v7", "pending"))
    assert path == str(folder / "videos/v7.mp4")
    assert heartbeats[-1] == ("v7", "finished")
    assert not a2v_service.submissions


def test_temporal_does_not_retry_an_unknown_submission(temporal: Any, order: int, a2v_service: Service) -> None:
    from temporalio.exceptions import ApplicationError

    a2v_service.lose_reply()
    for _ in range(2):
        with pytest.raises(ApplicationError) as error:
            run_activity(temporal, "submit", order)
        assert (error.value.type, error.value.non_retryable) == ("SubmissionUnknownError", True)
    assert len(a2v_service.seen("video.generate")) == len(a2v_service.submissions) == 1


def test_temporal_retries_what_was_not_submitted(temporal: Any, order: int, a2v_service: Service) -> None:
    a2v_service.refuse("video.generate", 429)
    with pytest.raises(a2v.RateLimitError):
        run_activity(temporal, "submit", order)
    run_activity(temporal, "submit", order)
    assert len(a2v_service.submissions) == 1


def test_temporal_runs_the_activity_of_a_killed_worker_again_and_submits_once(
    temporal: Any, order: int, a2v_service: Service
) -> None:
    from temporalio.exceptions import ApplicationError

    crash_while_submitting(
        a2v_service,
        f"import a2v, asyncio, temporal_activity as t\nasyncio.run(t.Videos(a2v.AsyncA2V()).submit({order}))",
    )
    with pytest.raises(ApplicationError, match="may have been submitted"):
        run_activity(temporal, "submit", order)
    assert len(a2v_service.seen("video.generate")) == len(a2v_service.submissions) == 1
