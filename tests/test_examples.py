"""Everything in ``examples/`` runs as a user would run it, against the test kit's service. ``http/`` is the engine's."""

from __future__ import annotations

import importlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

import a2v
from a2v.testing import Server
from tests.sets import one_by_default

EXAMPLES = Path(__file__).parents[1] / "examples"
AUDIO = "https://example.com/hello.wav"
ARGUMENTS = {
    "generate.py": [AUDIO, "eva_a0008"],
    "many.py": ["videos", AUDIO, f"{AUDIO}?2"],
    "without_async.py": [AUDIO, "eva_a0008"],
}
VIDEOS = {"generate.py": 1, "many.py": 2, "without_async.py": 1}

pytestmark = pytest.mark.usefixtures("user")


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_each_example_is_run() -> None:
    others = {
        "service.py",
        "worker.py",
        "notebook.ipynb",
        "http",
        "deployment",
    }  # below, and in the tests of the engine
    others |= {"orders.py", "celery_tasks.py", "prefect_flow.py", "temporal_activity.py"}  # test_recipes.py
    assert set(ARGUMENTS) | others == {path.name for path in EXAMPLES.iterdir() if not path.name.startswith("__")}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_leaves_its_videos(name: str, tmp_path: Path) -> None:
    done = run(name, *ARGUMENTS[name])
    assert done.returncode == 0, done.stderr
    assert [path.read_bytes() for path in tmp_path.rglob("*.mp4")] == [b"a video"] * VIDEOS[name]


@pytest.mark.parametrize("name", ["generate.py", "without_async.py"])
def test_an_example_says_what_was_wrong(name: str) -> None:
    done = run(name, AUDIO, "nobody")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_without_arguments_tells_its_usage(name: str) -> None:
    done = run(name)
    assert done.returncode == 1
    assert f"python examples/{name}" in done.stderr


# -- worker.py --------------------------------------------------------------------------------------------------------


def states(queue: Path) -> list[str]:
    with closing(sqlite3.connect(queue)) as db:
        return [state for (state,) in db.execute("SELECT state FROM videos ORDER BY number")]


def test_a_worker_makes_what_is_in_the_queue(tmp_path: Path) -> None:
    assert run("worker.py", "add", "queue.db", "eva_a0008", AUDIO, f"{AUDIO}?2").returncode == 0
    assert run("worker.py", "add", "queue.db", "nobody", AUDIO).returncode == 0
    done = run("worker.py", "work", "queue.db", "videos")
    assert (done.returncode, done.stderr) == (1, "")
    assert states(tmp_path / "queue.db") == ["saved", "saved", "failed"]
    assert "3: " in done.stdout
    assert "nobody" in done.stdout
    assert [path.read_bytes() for path in (tmp_path / "videos").iterdir()] == [b"a video"] * 2


def until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_worker_that_was_killed_picks_up_what_it_had_submitted(a2v_server: Server, tmp_path: Path) -> None:
    a2v_server.service.poll_statuses = [*["pending"] * 3, "finished"]
    run("worker.py", "add", "queue.db", "eva_a0008", AUDIO, f"{AUDIO}?2")
    command = [sys.executable, str(EXAMPLES / "worker.py"), "work", "queue.db", "videos"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: states(tmp_path / "queue.db") == ["submitted"] * 2, process)
        process.kill()
    assert not list(tmp_path.rglob("*.mp4"))
    done = run("worker.py", "work", "queue.db", "videos")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("picked up") == 2
    assert states(tmp_path / "queue.db") == ["saved"] * 2
    assert len(a2v_server.service.submissions) == 2


def test_a_worker_never_submits_twice_what_may_have_arrived(a2v_server: Server, tmp_path: Path) -> None:
    a2v_server.service.lose_reply()
    run("worker.py", "add", "queue.db", "eva_a0008", AUDIO)
    for _ in range(2):
        done = run("worker.py", "work", "queue.db", "videos")
        assert done.returncode == 1
        assert f"unknown; look for a video of {AUDIO}" in done.stdout
    assert states(tmp_path / "queue.db") == ["submitting"]
    assert len(a2v_server.service.submissions) == 1


def test_a_worker_keeps_for_later_what_the_account_cannot_pay(a2v_server: Server, tmp_path: Path) -> None:
    a2v_server.service.quota = 0
    run("worker.py", "add", "queue.db", "eva_a0008", AUDIO)
    assert run("worker.py", "work", "queue.db", "videos").returncode == 1
    assert states(tmp_path / "queue.db") == ["new"]


def test_a_worker_without_arguments_tells_its_usage() -> None:
    done = run("worker.py")
    assert done.returncode == 1
    assert "python examples/worker.py work" in done.stderr


# -- orders.py; the tasks that use it are in test_recipes.py -----------------------------------------------------------


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("orders")


def test_only_one_of_two_runs_may_submit_an_order(orders: Any) -> None:
    order = orders.add("eva_a0008", AUDIO)
    with orders.submitting(order) as first:
        with (
            pytest.raises(a2v.SubmissionUnknownError, match="order 1 may have been submitted"),
            orders.submitting(order),
        ):
            pass
        first.video_id = "v1"
    with orders.submitting(order) as again:
        assert again.video_id == "v1"


@pytest.mark.parametrize(("error", "then"), [(a2v.TransportError("down"), "new"), (KeyboardInterrupt(), "claimed")])
def test_an_order_is_free_again_only_if_nothing_was_submitted(orders: Any, error: BaseException, then: str) -> None:
    order = orders.add("eva_a0008", AUDIO)
    with pytest.raises(type(error)), orders.submitting(order):
        raise error
    if then == "new":
        with orders.submitting(order) as order_:
            assert order_.video_id is None
    else:
        with pytest.raises(a2v.SubmissionUnknownError), orders.submitting(order):
            pass


# -- service.py -------------------------------------------------------------------------------------------------------


@pytest.fixture
def web(a2v_server: Server) -> Iterator[httpx.Client]:
    """A browser's connection to the service."""
    command = [sys.executable, "-m", "uvicorn", "service:app", "--app-dir", str(EXAMPLES), "--port", "0"]
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        started = next(found for line in process.stderr if (found := re.search(r"running on (http://\S+)", line)))
        with httpx.Client(base_url=started[1], timeout=30) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        told = process.stderr.read()
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in told


def events(web: httpx.Client, path: str) -> list[tuple[str, object]]:
    with web.stream("GET", path) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        told = "".join(reply.iter_text()).strip().split("\n\n")
    fields = [dict(line.split(": ", 1) for line in event.splitlines() if line[0] != ":") for event in told]
    return [(event.get("event", "message"), json.loads(event["data"])) for event in fields if event]


def order(web: httpx.Client, audio_url: str = AUDIO) -> httpx.Response:
    return web.post("/videos", json={"model_id": "eva_a0008", "audio_url": audio_url})


def test_the_service_accepts_at_once_and_reports_each_change(web: httpx.Client, a2v_server: Server) -> None:
    a2v_server.service.poll_statuses = ["pending", "in_progressing", "finished"]
    accepted = order(web)
    assert accepted.status_code == 202
    assert a2v_server.service.polls == ()
    *changes, end = events(web, accepted.json()["events"])
    assert [data["status"] for _, data in changes] == ["pending", "in_progressing", "finished"]
    assert changes[-1][1]["video_url"].startswith(a2v_server.base_url)
    assert end == ("end", accepted.json()["video_id"])


def test_the_service_reports_on_a_video_of_an_earlier_life(web: httpx.Client, a2v_server: Server) -> None:
    a2v_server.service.add_video("v7", "error")
    assert events(web, "/videos/v7/events")[0] == ("message", {"status": "error", "video_url": None})
    assert events(web, "/videos/nothing/events")[0][0] == "failure"


def test_the_service_says_whether_to_try_again(web: httpx.Client, a2v_server: Server) -> None:
    service = a2v_server.service
    invalid = order(web, "no url")
    assert (invalid.status_code, invalid.json()["error"]) == (422, "InvalidArgumentError")
    service.lose_reply()
    lost = order(web)
    assert (lost.status_code, lost.json()["try_again"]) == (424, False)
    assert lost.json()["error"] == "SubmissionUnknownError"
    service.refuse("video.generate", 400, "no such audio")
    refused = order(web)
    assert (refused.status_code, refused.json()["try_again"]) == (422, False)
    assert "no such audio" in refused.json()["message"]
    assert len(service.submissions) == 1


@pytest.mark.parametrize("status", one_by_default(401, 403))
def test_the_service_does_not_blame_its_users_for_its_token(web: httpx.Client, a2v_server: Server, status: int) -> None:
    a2v_server.service.refuse("video.generate", status, "the account of ACME has no quota")
    refused = order(web)
    assert (refused.status_code, refused.json()["try_again"]) == (500, False)
    assert "ACME" not in refused.text


# -- notebook.ipynb ---------------------------------------------------------------------------------------------------


@pytest.mark.extended
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    shown = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "Eva 01" in shown
    assert "<video" in shown
    assert "failed" not in shown
    assert len(list(tmp_path.glob("*.mp4"))) == 1
    assert len(list(tmp_path.glob("videos/*.mp4"))) == 4
    assert all(path.read_bytes()[4:8] == b"ftyp" for path in tmp_path.rglob("*.mp4"))
