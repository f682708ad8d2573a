"""The limits of a render, and the ways to set the engine's settings."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import anyio
import attrs
import httpx
import pytest

import a2v.engine
from a2v.cli.commands import run
from a2v.cli.options import EngineOptions
from a2v.engine import LocalEngine, Settings
from a2v.engine.errors import RenderError
from a2v.engine.renderer import RenderRequest, render_in_child
from a2v.engine.settings import SettingsOptions

CLIP = min((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"), key=lambda path: path.stat().st_size)
# Runs until it is stopped, with the limits of a real render.
SPIN = "from a2v.engine.worker import _limit_resources as limit\nlimit(2 << 30, 1)\nwhile True: pass"


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel bounds no memory")
async def test_a_render_that_needs_more_memory_fails_and_the_engine_lives(poll_until):
    async with (
        LocalEngine(size=1080, format="portrait", max_render_mib=400, allow_files=CLIP) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": engine.token}) as client,
    ):
        job = {"model_id": "eva_a0008", "audio_url": CLIP.as_uri()}
        reply = await client.post("/v1/a2v/video.generate", json=job)
        video = await poll_until(client, reply.json()["data"]["video_id"], "error", "finished")
        assert (video["status"], video["message"]) == ("error", "the render needs more than 400 MiB of memory")
        assert (await client.get("/health")).status_code == 200


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="nothing bounds the CPU time")
async def test_cpu_time_is_limited(monkeypatch, tmp_path):
    """The server limits elapsed time. A render that it cannot stop exceeds its CPU time, which is not a crash."""
    monkeypatch.setattr("a2v.engine.renderer.WORKER", (sys.executable, "-c", SPIN))
    request = RenderRequest(
        audio=CLIP, subject_id="eva_a0008", destination=tmp_path / "video.mp4", max_render_seconds=30
    )
    with anyio.fail_after(20), pytest.raises(RenderError, match="took longer"):
        await render_in_child(request)


def defaults(function) -> dict[str, object]:
    """Return the defaults of the parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.name != "self"}


SETTINGS = {field.name: field.default for field in attrs.fields(Settings)}


def test_a_local_engine_takes_every_setting_but_host():
    assert SettingsOptions.__annotations__.keys() == SETTINGS.keys() - {"host", "data_dir", "token"}


def test_all_settings_can_be_given_on_the_command_line():
    # No token on a command line, because it is a secret; a fixed port, so that clients know it beforehand.
    assert defaults(EngineOptions) == {name: value for name, value in SETTINGS.items() if name != "token"} | {
        "port": 8000
    }


def test_settings_arrive_by_keyword_and_as_a_value():
    """Each setting with a value that is not its default."""
    given = {
        "data_dir": Path("data"),
        "token": "t0k3n",
        "port": 1234,
        "size": 720,
        "format": "portrait",
        "fps": 30,
        "workers": 3,
        "dask": "tcp://scheduler.example:8786",
        "queue_limit": 7,
        "allow_files": (CLIP,),
        "allow_private_urls": True,
        "revision": "seed",
        "like_hosted": True,
        "requests_per_minute": 5,
        "quota": 6,
        "max_audio_seconds": 8.0,
        "max_render_seconds": 9.0,
        "max_render_mib": 500,
        "keep_days": 10.0,
        "allowed_hosts": ("engine.example",),
        "characters": CLIP.parent,
        "max_uploads_mib": 11,
    }
    # `test_tls.py` has the certificate and its key.
    assert set(given) | {"host", "tls_cert", "tls_key"} == set(SETTINGS)
    assert LocalEngine(**given)._settings == LocalEngine(settings=Settings(**given))._settings == Settings(**given)
    assert not [name for name, value in given.items() if value == SETTINGS[name]]


@pytest.mark.parametrize("dask", [None, pytest.param("tcp://scheduler.example:8786", marks=pytest.mark.extended)])
def test_options_of_the_command_line_arrive(monkeypatch, dask):
    given = {}
    monkeypatch.setattr("a2v.engine.serve", lambda settings, **_: given.update(attrs.asdict(settings, recurse=False)))
    # It sets levels and handlers of loggers for the whole process.
    monkeypatch.setattr("a2v.cli.commands.log_to_stderr", lambda **_: None)
    monkeypatch.setenv("A2V_TOKEN", "t0k3n")
    options = {
        "host": "0.0.0.0",
        "port": "1234",
        "data_dir": "data",
        "size": "720",
        "format": "portrait",
        "fps": "30",
        "workers": "3",
        "queue_limit": "7",
        "allow_files": str(CLIP),
        "revision": "seed",
        "requests_per_minute": "5",
        "quota": "6",
        "max_audio_seconds": "8",
        "max_render_seconds": "9",
        "max_render_mib": "500",
        "keep_days": "10",
        "allowed_hosts": "engine.example",
        "characters": str(CLIP.parent),
        "max_uploads_mib": "11",
    }
    if dask:
        options["dask"] = dask
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert run(["serve", *words, "--allow-private-urls", "--like-hosted"]) == 0
    assert set(given) == set(SETTINGS)
    assert [name for name, value in given.items() if value == SETTINGS[name]] == [
        *([] if dask else ["dask"]),
        "tls_cert",
        "tls_key",
    ]
