"""A token and a signature that must not get out: searched for in everything that a process emits or stores."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

import a2v
from tests.sets import one_by_default

from .conftest import CANARY, SECRET, check, shown
from .server import VIDEO, Connection, Port, Request
from .toxics import POISONS

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}
SHORT = "hunter2"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged, at the lowest level, as it would be written to a file."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s %(exc_text)s"))
    names = (None, "httpx", "httpcore", "asyncio", "a2v")
    before = {name: logging.getLogger(name).level for name in names}
    logging.getLogger().addHandler(handler)
    for name in names:
        logging.getLogger(name).setLevel(1)
    yield stream
    logging.getLogger().removeHandler(handler)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def quotes(status: str, body: str = "we do not know {}", *headers: str):
    """A server that tells everybody what it was told."""

    async def toxic(conn: Connection, request: Request | None) -> None:
        await conn.rest(request)
        said = request.headers.get("authorization", "nobody")
        message = json.dumps({"code": 5, "message": body.format(said), "data": None}).encode()
        await conn.reply(message, status, f"X-You-Said: {said}", *(header.format(said) for header in headers))

    return toxic


async def moved(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    await conn.reply(b"", "302 Found", f"Location: /files/w.mp4?signature={SECRET}", f"Set-Cookie: session={CANARY}")


# -- logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("name", [name for name, poison in POISONS.items() if not poison.stalls])
async def test_nothing_is_logged_whatever_goes_wrong(dial, port, logged, name) -> None:
    poison = POISONS[name]
    for call in ("character.list", "video.generate"):
        if call not in poison.calls:
            return
        port.poison("connection" if poison.at == "connection" else call, poison.toxic)
        async with dial(max_retries=0) as client:  # of its own, for it may be told to wait a minute
            try:
                await (client.characters.list() if call == "character.list" else client.videos.generate(**JOB))
            except a2v.A2VError as error:
                check(error)
    assert "httpcore" in logged.getvalue()
    assert CANARY not in logged.getvalue()


@pytest.mark.anyio
async def test_a_whole_life_leaves_no_trace(dial, port, logged, capfd, tmp_path) -> None:
    """From the list of characters to the file, with everything that quotes on the way."""
    for status in ("200 OK", "400 Bad Request", "401 Unauthorized", "500 Oops", "429 Slow"):
        port.poison("character.list", quotes(status))
        async with dial(max_retries=0) as client:
            with pytest.raises(a2v.A2VError) as caught:
                await client.characters.list()
        check(caught.value)
    async with dial() as client:
        task = await client.videos.generate(**JOB)
        port.poison("file", moved)
        path = await task.download(tmp_path / "v.mp4")
        everything = [
            client,
            client.videos,
            client.characters,
            task,
            task.video,
            client._session,
            vars(client._session),
        ]
        assert CANARY not in repr(everything)
        assert CANARY.encode() not in pickle.dumps([task.video, await client.characters.list()])
    assert path.read_bytes() == VIDEO
    assert CANARY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    requests = [request for request in port.requests if request.call == "file"]
    assert [SECRET in request.target for request in requests] == [True, True]
    assert not any({"authorization", "cookie"} & request.headers.keys() for request in requests)
    out, err = capfd.readouterr()
    for secret in (CANARY, SECRET):
        assert secret not in logged.getvalue()
        assert secret not in out + err


@pytest.mark.anyio
async def test_others_log_as_they_like(port, logged) -> None:
    """Only lines about our own requests are cut short."""
    import httpx

    port.poison("character.list", quotes("200 OK"))
    async with httpx.AsyncClient(trust_env=False) as other:
        await other.get(port.url + "/v1/a2v/character.list", headers={"authorization": "Bearer of-others"})
    assert "of-others" in logged.getvalue()


# -- tracebacks that show local variables ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [a2v.AsyncA2V, a2v.A2V])
@pytest.mark.parametrize(
    "settings",
    [
        {"token": f"Bearer {CANARY}"},
        {"token": CANARY + "\n"},
        {"token": CANARY * 30},
        {"token": CANARY.encode()},
        {"token": CANARY, "base_url": "http://example.com"},
        {"token": CANARY, "base_url": f"https://user:{SECRET}@example.com"},
        {"token": CANARY, "timeout": -1},
        {"token": CANARY, "transport": object()},
    ],
    ids=lambda settings: list(settings)[-1],
)
def test_a_client_that_cannot_be_made(kind, settings) -> None:
    with pytest.raises(a2v.ConfigurationError) as caught:
        kind(**settings)
    check(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("variables", [{"A2V_TOKEN": f"Bearer {CANARY}"}, {"A2V_TOKEN": CANARY, "A2V_BASE_URL": "x"}])
def test_an_environment_of_which_no_client_can_be_made(monkeypatch, variables) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(a2v.ConfigurationError) as caught:
        a2v.AsyncA2V()
    check(caught.value)


def test_a_call_that_is_cancelled_at_whatever_moment(port) -> None:
    """The traceback of a cancellation leads through httpcore, where the head of the request is a local variable."""
    reports = []

    async def main() -> None:
        for spins in range(60):
            client = a2v.AsyncA2V(CANARY, base_url=port.url, rate_limit=None)
            call = asyncio.create_task(client.videos.generate(**JOB))
            for _ in range(spins):
                await asyncio.sleep(0)
            call.cancel()
            try:
                await call
            except asyncio.CancelledError as error:
                reports.append(shown(error))
            await client.aclose()

    asyncio.run(main())
    assert any("exchange" in report for report in reports) or len(reports) > 10
    assert not any(CANARY in report for report in reports)


@pytest.mark.anyio
async def test_a_transport_that_breaks_in_its_own_way() -> None:
    """What is no error of ours passes, but shows nothing of what the transport held."""
    import httpx

    class Breaks(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            head = dict(request.headers)
            assert CANARY in head["authorization"]
            raise KeyboardInterrupt

    client = a2v.AsyncA2V(CANARY, transport=Breaks())
    try:
        await client.characters.list()
    except KeyboardInterrupt as error:
        report = shown(error)
    assert CANARY not in report


def answers(status: str, *headers: str, body: bytes = b""):
    """A file server that says something else each time."""

    async def behave(conn: Connection) -> None:
        while True:
            request = await conn.request()
            if request.call == "file":
                await conn.reply(body, status, *headers)
            else:
                await conn.answer(request)

    return behave


async def cuts(conn: Connection) -> None:
    request = await conn.request()
    if request.call == "file":
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    else:
        await conn.answer(request)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "behave",
    [
        answers("403 Forbidden"),
        answers("500 Oops"),
        answers("200 OK", "Content-Type: text/html", body=b"log in"),
        answers("200 OK", "Content-Encoding: gzip", body=b"abc"),
        answers("302 Found", f"Location: /files/w.mp4?signature={SECRET}"),
        answers("302 Found", f"Location: ftp://files.example/w.mp4?signature={SECRET}"),
        answers("302 Found", f"Location: https://[files.example/w.mp4?signature={SECRET}"),
        cuts,
    ],
    ids=["expired", "broken", "a page", "compressed", "in circles", "to elsewhere", "to nowhere", "breaks off"],
)
async def test_a_signed_url_that_cannot_be_fetched(dial, port, tmp_path, behave) -> None:
    port.behave = behave
    async with dial(max_retries=0) as client:
        task = client.videos.task("v1")
        with pytest.raises(a2v.DownloadError) as caught:
            await task.download(tmp_path / "v.mp4")
    assert f"signature={SECRET}" in task.video.video_url
    report = shown(caught.value)
    assert "_fetch" in report or "_Download" in report
    assert SECRET not in report


@pytest.mark.anyio
async def test_a_video_without_a_mask(dial, port, tmp_path) -> None:
    async with dial() as client:
        with pytest.raises(a2v.DownloadError) as caught:
            await client.videos.task("v1").download(tmp_path / "v.mp4", mask=True)
    report = shown(caught.value)
    assert "/files/v.mp4?…" in report
    assert SECRET not in report


def test_a_download_that_is_cancelled_at_whatever_moment(port, tmp_path) -> None:
    reports = []

    async def main() -> None:
        async with a2v.AsyncA2V(CANARY, base_url=port.url, rate_limit=None) as client:
            task = client.videos.task("v1")
            await task.wait()
            for moment in range(60):
                download = asyncio.create_task(task.download(tmp_path / f"{moment}.mp4"))
                await asyncio.sleep(moment / 2000)
                download.cancel()
                try:
                    await download
                except asyncio.CancelledError as error:
                    reports.append(shown(error))

    asyncio.run(main())
    assert any("_Download" in report for report in reports)
    assert not any(SECRET in report for report in reports)


# -- tokens that are quoted ------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("token", [CANARY, "12345678", "ab/cd+ef==", 'a"b\\c/d<e>&', SHORT, "t"])
@pytest.mark.parametrize("spelled", ["as it is", "by PHP", "in Unicode"])
async def test_quoted_however_the_server_writes_json(port, token, spelled) -> None:
    def body(said: str) -> bytes:
        text = json.dumps({"code": 5, "message": f"we do not know '{said}', sorry", "data": None})
        if spelled == "by PHP":
            text = text.replace("/", "\\/")
        if spelled == "in Unicode":
            text = text.replace("/", "\\u002F").replace("=", "\\u003d").replace("<", "\\u003C").replace("+", "\\u002b")
        return text.encode()

    async def toxic(conn: Connection, request: Request | None) -> None:
        await conn.reply(body(request.headers["authorization"]), "400 Bad Request")

    port.poison("character.list", toxic)
    async with a2v.AsyncA2V(token, base_url=port.url) as client:
        with pytest.raises(a2v.APIError) as caught:
            await client.characters.list()
    assert caught.value.message == "we do not know 'Bearer [token]', sorry"


@pytest.mark.anyio
async def test_a_short_token_spoils_no_word(port) -> None:
    async with a2v.AsyncA2V("e", base_url=port.url) as client:
        assert (await client.characters.list())[0].model_id == "eva_a0008"


# -- processes of their own ------------------------------------------------------------------------------------------


def run(script: str, port: Port, folder, *arguments: str) -> tuple[int, str]:
    """Run Python with everything that makes it talk; what it said and stored."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("A2V_")}
    command = [
        sys.executable,
        "-X",
        "dev",
        "-W",
        "default",
        *(["-c", textwrap.dedent(script)] if script else []),
        *arguments,
    ]
    environment = kept | {"A2V_TOKEN": CANARY, "A2V_BASE_URL": port.url, "PYTHONASYNCIODEBUG": "1", "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=100)
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return done.returncode, (done.stdout + done.stderr + stored).decode("latin-1")


def test_a_process_that_dies_of_it(port, tmp_path) -> None:
    """Its log at the lowest level, its last traceback, its files."""
    port.poison("video.generate", quotes("500 Oops"))
    code, said = run(
        """
        import asyncio, logging, a2v
        logging.basicConfig(level=1)

        async def main():
            async with a2v.AsyncA2V() as client:
                await client.characters.list()
                await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/hello.wav")

        asyncio.run(main())
        """,
        port,
        tmp_path,
    )
    assert code == 1
    assert "SubmissionUnknownError" in said
    assert "httpcore" in said
    assert CANARY not in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    one_by_default(
        (["generate", "https://example.com/a.wav", "--model-id", "eva_a0008", "--output", "w.mp4"], 3),
        (["characters"], 1),
        (["get", "v1", "--json"], 0),
        (["download", "v1", "--output", "v.mp4"], 0),
    ),
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_program(port, tmp_path, arguments, code) -> None:
    if arguments == ["characters"]:  # ``generate`` asks for them first, and would end there
        port.poison("character.list", quotes("400 Bad Request"))
    port.poison("video.generate", quotes("500 Oops"))
    done, said = run("", port, tmp_path, "-m", "a2v.cli", *arguments)
    assert done == code, said
    assert CANARY not in said
