"""Files of this machine for an engine elsewhere: the commands upload them."""

from __future__ import annotations

import shutil

import pytest
from anyio.from_thread import start_blocking_portal

import a2v.engine


@pytest.fixture
def team(monkeypatch, here, tmp_path):
    """Commands find an engine whose renders copy the recording; it keeps its data."""

    async def render(request):
        request.destination.write_bytes(b"\0\0\0\x18ftypisom" + request.audio.read_bytes())

    monkeypatch.setattr("a2v.engine.app.render_in_child", render)
    settings = {"data_dir": tmp_path / "engine", "token": "token-of-the-team"}
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(a2v.engine.LocalEngine(**settings)) as engine,
    ):
        monkeypatch.setenv("A2V_TOKEN", engine.token)
        monkeypatch.setenv("A2V_BASE_URL", engine.base_url)
        monkeypatch.chdir(tmp_path)
        yield tmp_path / "engine/uploads"


@pytest.fixture
def speeches(tmp_path):
    (tmp_path / "speeches").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"speeches/{name}.wav").write_bytes(b"RIFF" + name.encode())
    return tmp_path / "speeches"


def test_generate_uploads_a_file(team, here, speeches, tmp_path):
    code, _, error = here("generate", "speeches/one.wav", "--model-id", "eva_a0008", "-o", "one.mp4")
    assert (code, error) == (0, "")
    assert (tmp_path / "one.mp4").read_bytes().endswith(b"RIFFone")
    assert len(list(team.iterdir())) == 1


def test_a_batch_uploads_what_it_submits_and_continues_without(team, here, speeches, tmp_path):
    command = ["batch", "speeches", "--model-id", "eva_a0008", "-o", "videos"]
    assert here(*command, "--limit", "1")[0] == 0
    assert len(list(team.iterdir())) == 1
    code, planned, _ = here(*command, "--dry-run")
    assert (code, planned.splitlines()[0]) == (0, "2 jobs: 1 done, 1 not submitted")
    assert here(*command)[0] == 0
    for name in ("one", "two"):
        assert (tmp_path / f"videos/{name}.mp4").read_bytes().endswith(name.encode())
    shutil.copytree(speeches, tmp_path / "copies")
    code, planned, _ = here("batch", "copies", *command[2:], "--dry-run")
    assert (code, planned.splitlines()[0]) == (0, "2 jobs: 2 done")
    assert len(list(team.iterdir())) == 2


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_another_server_gets_no_files_and_the_error_says_so_once(here, service, speeches, more):
    code, _, error = here("batch", "speeches", "--model-id", "eva_a0008", "-o", "videos", *more)
    assert code == 2
    assert error.count("the server can only fetch URLs") == 1
    assert error.count("--stage-to s3://BUCKET/PREFIX") == 1
    assert service.submissions == ()


def test_the_hosted_service_is_not_asked(here, environment, speeches, monkeypatch):
    monkeypatch.delenv("A2V_BASE_URL")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    code, _, error = here("generate", "speeches/one.wav", "--model-id", "eva_a0008")
    assert (code, "the server can only fetch URLs" in error) == (2, True)


def test_a_dry_run_without_the_server(here, speeches, monkeypatch, closed_port):
    monkeypatch.setenv("A2V_BASE_URL", f"http://127.0.0.1:{closed_port}")
    code, planned, error = here("batch", "speeches", "--model-id", "eva_a0008", "-o", "videos", "--dry-run")
    assert (code, planned.splitlines()[0]) == (0, "2 jobs: 0 done, 2 not submitted")
    assert "whether the server accepts uploads was not checked" in error
