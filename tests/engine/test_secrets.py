"""No object of the engine pickles its token, and no traceback that shows variables shows it or a signed URL."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import traceback

import attrs
import httpx
import pytest
from rich.console import Console
from rich.traceback import Traceback

import a2v.engine
from a2v.cli import commands as cli
from a2v.engine import LocalEngine, Settings, task_store
from a2v.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("quick_renders")

CANARY = "canary-7d1e9f0c44"


def canary() -> str:
    """A token that no local variable of a test holds."""
    return CANARY


def shown(error: BaseException) -> str:
    """Return what error reporters show, with the local variables of each frame."""
    return plainly(error) + richly(error)


def plainly(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def richly(error: BaseException) -> str:
    console = Console(file=io.StringIO(), width=300)
    locals_ = {"show_locals": True, "locals_max_string": None, "locals_max_length": None}
    console.print(Traceback.from_exception(type(error), error, error.__traceback__, **locals_))
    return console.file.getvalue()


WRONG = {
    "data_dir": "",
    "host": 7,
    "port": "x",
    "size": 3,
    "format": "round",
    "fps": 7,
    "workers": 0,
    "dask": "",
    "queue_limit": 0,
    "allow_files": "/no/such/folder",
    "allow_private_urls": "no",
    "revision": "third",
    "like_hosted": 1,
    "requests_per_minute": 0,
    "quota": 0,
    "max_audio_seconds": "x",
    "max_render_seconds": -1,
    "max_render_mib": 1,
    "keep_days": 0,
    "allowed_hosts": 7,
    "characters": "/no/such/folder",
    "tls_cert": "/no/such/file",
    "tls_key": "/no/such/file",
    "max_uploads_mib": 0,
}


def test_there_is_a_wrong_value_of_each_setting():
    assert set(WRONG) == {field.name for field in attrs.fields(Settings)} - {"token"}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_settings_do_not_show_the_token(name):
    for make in (Settings, LocalEngine):
        with pytest.raises(ConfigurationError) as caught:
            make(token=canary(), **{name: WRONG[name]})
        assert CANARY not in plainly(caught.value)


@pytest.mark.parametrize("wrong", ["{} with spaces", "{}\n", "{}é"])
def test_an_invalid_token_is_not_shown(wrong):
    for make in (Settings, LocalEngine):
        with pytest.raises(ConfigurationError, match="token must be") as caught:
            make(token=wrong.format(canary()))
        assert CANARY not in plainly(caught.value)


def test_an_unknown_setting_does_not_show_the_token():
    with pytest.raises(TypeError) as caught:
        Settings(token=canary(), sise=3)
    assert CANARY not in shown(caught.value)


@pytest.mark.anyio
async def test_a_failed_start_does_not_show_the_token(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError) as caught:
        async with LocalEngine(data_dir=tmp_path / "file", token=canary()):
            pass
    assert CANARY not in plainly(caught.value)


@pytest.mark.parametrize(
    "make", [lambda: Settings(token=canary()), lambda: LocalEngine(token=canary())], ids=["Settings", "LocalEngine"]
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_with_a_token_is_pickled(make, protocol):
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(make(), protocol)


def test_settings_are_copied_and_changed():
    settings = Settings(token=canary(), size=720)
    assert copy.copy(settings) == copy.deepcopy(settings) == settings
    assert attrs.evolve(settings, size=512) == Settings(token=canary())
    assert attrs.evolve(settings, token="other").token == "other"
    assert CANARY not in repr(settings) + repr(vars(LocalEngine(token=canary())))


@pytest.fixture
def reported(monkeypatch):
    """The tracebacks of logged errors, as an error reporter collects them."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())
            if record.exc_info:
                found.append(plainly(record.exc_info[1]))

    handler = Collect()
    names = ("a2v", "uvicorn", "asyncio")
    for name in names:
        logging.getLogger(name).addHandler(handler)
    yield found
    for name in names:
        logging.getLogger(name).removeHandler(handler)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["Bearer {}", "{}"])
@pytest.mark.parametrize("where", ["newest", "consume_quota"])
async def test_a_bug_in_a_request_handler_does_not_show_the_token(monkeypatch, reported, form, where):
    monkeypatch.setattr(task_store.TaskStore, where, bug)
    async with LocalEngine(token=canary(), quota=5) as engine:
        headers = {"Authorization": form.format(canary())}
        async with httpx.AsyncClient(base_url=engine.base_url, headers=headers) as client:
            assert (await client.get("/v1/a2v/video.list")).status_code == 500
    assert "ZeroDivisionError" in "".join(reported)
    assert CANARY not in "".join(reported)


@pytest.fixture
async def client(recordings):
    async with (
        LocalEngine(token=canary(), allow_files=recordings) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": canary()}) as client,
    ):
        yield client


@pytest.fixture
def ended(client, say, poll_until):
    """Submit a task with a signed URL, and wait until it ends."""

    async def ended() -> dict[str, str]:
        job = {"model_id": "eva_a0008", "audio_url": f"{say('hello')}?signature={canary()}"}
        video_id = (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]
        return await poll_until(client, video_id, "finished", "error")

    return ended


def bug(*_: object, **__: object):
    raise ZeroDivisionError


@pytest.mark.anyio
async def test_a_bug_in_the_middle_of_a_response_does_not_show_the_token(monkeypatch, reported, client, ended):
    async def bug(*_: object):
        raise ZeroDivisionError

    monkeypatch.setattr("a2v.engine.video_response.VideoResponse._send_until_disconnect", bug)
    video = await ended()
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(video["video_url"])
    assert "ZeroDivisionError" in "".join(reported)
    assert CANARY not in "".join(reported)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "where",
    [
        "a2v.engine.render_queue.fetch_recording",
        "a2v.engine.recording_fetcher._copy_file",
        "a2v.engine.render_queue.move_durably",
    ],
)
async def test_a_bug_while_a_task_is_processed_does_not_show_its_url(monkeypatch, reported, where, ended):
    monkeypatch.setattr(where, bug)
    assert (await ended())["message"] == "internal error; see the engine's log"
    assert "ZeroDivisionError" in "".join(reported)
    assert CANARY not in "".join(reported)


@pytest.mark.anyio
async def test_a_bug_during_the_submission_does_not_show_the_url(monkeypatch, reported, ended):
    monkeypatch.setattr("a2v.engine.task_store.secrets.token_hex", bug)
    with pytest.raises(TypeError):
        await ended()
    assert "ZeroDivisionError" in "".join(reported)
    assert CANARY not in "".join(reported)


def test_a_bug_of_the_command_does_not_show_the_token(monkeypatch, tmp_path):
    monkeypatch.setenv("A2V_TOKEN", canary())
    monkeypatch.setattr(a2v.engine, "serve", bug)
    with pytest.raises(ZeroDivisionError) as caught:
        cli.run(["serve", "--port", "0"])
    assert CANARY not in plainly(caught.value)
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(canary())
    with pytest.raises(ZeroDivisionError) as caught:
        cli.run(["serve", "--port", "0", "--token-file", str(file)])
    assert CANARY not in plainly(caught.value)
