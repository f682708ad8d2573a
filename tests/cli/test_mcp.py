"""``a2v mcp``, as the official client sees it."""

from __future__ import annotations

import json
import os
import sys

import anyio
import pytest

import a2v
from a2v.testing import Reply, Service

pytest.importorskip("mcp", reason="needs the extra mcp")
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from a2v.cli.mcp_server import make_server

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

HELLO = {"model_id": "eva_a0008", "text": "Hello!"}


@pytest.fixture
def service() -> Service:
    voices = [a2v.Voice(voice_name="mike", gender="male"), a2v.Voice(voice_name="heart", gender="female")]
    return Service(voices=voices, poll_statuses=["finished"])


@pytest.fixture
def assistant(service, tmp_path):
    """Call tools of a server: ``await call("make_video", model_id=…)`` returns the result, or the text of the error."""

    async def use(work, **settings):
        async with a2v.AsyncA2V("token", transport=service.transport()) as client:
            server = make_server(client, tmp_path / "videos", **{"short_wait": 0.2} | settings)
            async with Client(server) as connected:

                async def call(tool, /, *, on_progress=None, **arguments):
                    reply = await connected.call_tool(tool, arguments, progress_callback=on_progress)
                    if reply.is_error:
                        return reply.content[0].text
                    found = reply.structured_content or {}
                    return found.get("result", found)

                return await work(call, connected)

    return use


async def test_an_assistant_makes_a_video(assistant, service, tmp_path) -> None:
    async def work(call, connected):
        tools = {tool.name for tool in (await connected.list_tools()).tools}
        assert tools == {"list_characters", "list_voices", "make_video", "check_video", "wait_for_video", "save_video"}
        assert [one["model_id"] for one in await call("list_characters")] == ["eva_a0008"]
        assert [one["voice_name"] for one in await call("list_voices")] == ["mike", "heart"]
        made = await call("make_video", **HELLO)
        assert (made["video_id"], made["status"]) == ("v1", "finished")
        saved = await call("save_video", video_id="v1", name="hello.mp4")
        assert saved["path"] == str(tmp_path / "videos" / "hello.mp4")

    await assistant(work, short_wait=60)
    assert (tmp_path / "videos" / "hello.mp4").read_bytes() == b"video of v1"
    assert service.syntheses[0].voice_name == "heart"


async def test_the_same_request_is_submitted_once(assistant, service) -> None:
    async def work(call, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(lambda: call("make_video", **HELLO))
        assert (await call("make_video", **HELLO))["video_id"] == "v1"
        assert len(service.submissions) == 1
        assert (await call("make_video", **HELLO, again=True))["video_id"] == "v2"
        assert (await call("make_video", **HELLO))["video_id"] == "v2"
        assert (await call("make_video", **HELLO, voice_name="mike"))["video_id"] == "v3"

    await assistant(work)
    assert len(service.submissions) == 3


async def test_a_character_is_chosen_by_its_name(assistant, service) -> None:
    service.characters = [
        a2v.Character(model_id="eva_a0008", display_name="Eva 01", gender="female"),
        a2v.Character(model_id="leo_a0004", display_name="Leo", gender="male"),
        a2v.Character(model_id="leo_a0005", display_name="Leo"),
    ]

    async def work(call, _):
        for name, problem in (
            ("eva_a8", "model_id: there is no character 'eva_a8'; did you mean 'eva_a0008'?"),
            ("Leo", "model_id: 2 characters are called 'Leo': use one of 'leo_a0004', 'leo_a0005'"),
        ):
            assert problem in await call("make_video", model_id=name, text="Hello!")
        assert not service.syntheses
        assert (await call("make_video", model_id="Eva 01", text="Hello!"))["video_id"] == "v1"
        assert (await call("make_video", **HELLO))["video_id"] == "v1"  # the same request

    await assistant(work)
    assert [one.model_id for one in service.submissions] == ["eva_a0008"]
    assert service.syntheses[0].voice_name == "heart"


async def test_captions(assistant, service, tmp_path) -> None:
    async def work(call, _):
        made = await call("make_video", **HELLO, captions=["files", "burned"])
        assert made["captions_url"].endswith("/v1.vtt?signature=s3cret")
        saved = await call("save_video", video_id="v1", name="hello")
        assert saved["captions"] == [str(tmp_path / "videos" / name) for name in ("hello.srt", "hello.vtt")]
        assert "hello.mp4 exists already: choose another name" in await call("save_video", video_id="v1", name="hello")
        (tmp_path / "videos/hello.mp4").unlink()
        assert "hello.srt exists already: choose another name" in await call("save_video", video_id="v1", name="hello")
        assert not (tmp_path / "videos/hello.mp4").exists()
        # The same request, in another order.
        assert (await call("make_video", **HELLO, captions=["burned", "files"]))["video_id"] == "v1"
        assert "Input should be 'files', 'track' or 'burned'" in await call("make_video", **HELLO, captions=["srt"])
        assert (await call("make_video", **HELLO))["video_id"] == "v2"  # another request

    await assistant(work)
    assert service.submissions[0].options == {"captions": ["files", "burned"]}
    assert (tmp_path / "videos/hello.vtt").read_text().endswith("captions of v1\n")


async def test_captions_that_are_missing_do_not_cost_the_video(assistant, service, tmp_path) -> None:
    service.reply("file", lambda call: Reply(404, b"") if ".vtt" in call.url else None, times=None)

    async def work(call, _):
        await call("make_video", **HELLO, captions=["files"])
        problem = await call("save_video", video_id="v1", name="hello")
        assert "the captions could not be fetched: HTTP 404; the video itself was saved: " in problem

    await assistant(work)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["hello.mp4"]


async def test_an_unknown_submission_is_not_repeated(assistant, service) -> None:
    service.lose_reply("video.generate")

    async def work(call, _):
        assert "may or may not have accepted" in await call("make_video", **HELLO)
        assert "again=true submits it again" in await call("make_video", **HELLO)
        assert (len(service.submissions), len(service.syntheses)) == (1, 1)
        assert (await call("make_video", **HELLO, again=True))["video_id"] == "v2"

    await assistant(work)


@pytest.mark.parametrize(
    ("statuses", "syntheses"),
    [
        ([400], 1),
        ([402, 402, 402], 1),
        ([400, 400], 2),  # the speech itself may be refused
    ],
)
async def test_a_speech_is_used_again_after_a_refusal(assistant, service, statuses, syntheses) -> None:
    for nth, status in enumerate(statuses, 1):
        service.reply("video.generate", Reply.refusal(status, "no"), nth=nth)

    async def work(call, _):
        for _ in statuses:
            assert "no" in await call("make_video", **HELLO)
        assert (await call("make_video", **HELLO))["video_id"] == "v1"

    await assistant(work)
    assert len(service.syntheses) == syntheses


async def test_a_speech_is_used_again_after_an_unknown_submission(assistant, service) -> None:
    service.lose_reply("video.generate")

    async def work(call, _):
        assert "may or may not have accepted" in await call("make_video", **HELLO)
        assert (await call("make_video", **HELLO, again=True))["video_id"] == "v2"

    await assistant(work)
    assert len(service.syntheses) == 1


async def test_a_speech_whose_url_may_have_expired_is_made_again(assistant, service, monkeypatch) -> None:
    monkeypatch.setattr("a2v.cli.mcp_server._SPEECH_SECONDS", 0.0)
    service.refuse("video.generate", 400, "no")

    async def work(call, _):
        assert "no" in await call("make_video", **HELLO)
        assert (await call("make_video", **HELLO))["video_id"] == "v1"

    await assistant(work)
    assert len(service.syntheses) == 2


async def test_waiting_reports_progress(assistant, service) -> None:
    service.poll_statuses = ["pending", "finished"]
    seen = []

    async def progress(done, total, message):
        seen.append((done, total, message))

    async def work(call, _):
        assert (await call("make_video", **HELLO))["status"] in ("pending", "finished")
        assert (await call("check_video", video_id="v1"))["status"] in ("pending", "finished")
        done = await call("wait_for_video", video_id="v1", timeout_seconds=30, on_progress=progress)
        assert (done["status"], done["video_url"].split("?")[0]) == ("finished", "https://files.example/files/v1.mp4")

    await assistant(work)
    assert seen[0][1] == 30
    assert "video v1" in seen[0][2]


async def test_what_has_not_ended_and_what_has_failed(assistant, service) -> None:
    service.poll_statuses = ["pending"]
    service.add_video("bad", "error", message="silence")

    async def work(call, _):
        assert (await call("wait_for_video", video_id="bad")) == {
            "video_id": "bad",
            "status": "error",
            "message": "silence",
        }
        await call("make_video", **HELLO)
        assert (await call("wait_for_video", video_id="v1", timeout_seconds=0))["status"] == "pending"
        assert "there is no video 'x'" in await call("check_video", video_id="x")

    await assistant(work)


@pytest.mark.parametrize("name", ["../a", "a/b", "/etc/a", "..", "a\\b", ".hidden", "con", "", "link"])
async def test_nothing_is_written_elsewhere(assistant, service, tmp_path, name) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    service.add_video("v")

    async def work(call, _):
        assert isinstance(await call("save_video", video_id="v", name=name), str)
        await call("save_video", video_id="v", name="good")
        assert "exists" in await call("save_video", video_id="v", name="good")

    await assistant(work)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["good.mp4"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"model_id": "eva_a0008"}, "audio_url must be the URL"),
        ({"model_id": "", "text": "a"}, "model_id must be"),
        ({"model_id": "e", "audio_url": "file:///etc/passwd"}, "must be an https:// URL"),
        ({"model_id": "e", "audio_url": "https://x/a", "text": "a", "voice_name": "v"}, "not both"),
    ],
)
async def test_requests_that_are_refused(assistant, service, arguments, problem) -> None:
    async def work(call, _):
        assert problem in await call("make_video", **arguments)

    await assistant(work)
    assert not service.submissions


async def test_over_standard_input_and_output(service, tmp_path) -> None:
    with service.server() as server:
        environment = {**os.environ, "A2V_TOKEN": server.token, "A2V_BASE_URL": server.base_url}
        command = [sys.executable, "-m", "a2v.cli", "mcp", "-o", str(tmp_path / "videos"), "-v"]
        parameters = StdioServerParameters(command=command[0], args=command[1:], env=environment)
        async with Client(stdio_client(parameters)) as client:
            reply = await client.call_tool("list_characters", {})
            assert json.loads(reply.content[0].text)["model_id"] == "eva_a0008"
