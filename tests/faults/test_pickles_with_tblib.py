"""Errors travel between processes in which tblib also pickles causes, contexts and tracebacks, as in those of Dask."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("tblib", reason="needs the dependency group `extended`")

# tblib changes how every exception of the process is pickled, so this runs in a process of its own.
PROGRAM = """
import pickle, sys
import anyio, httpx, tblib.pickling_support, trio
import a2v

tblib.pickling_support.install()
JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}
URL = "https://files.example/v.mp4"
VIDEO = {"video_id": "rendered", "status": "finished", "video_url": URL}
errors, waiting = [], 0


async def answer(request):
    global waiting
    name = request.url.path.rpartition("/")[2]
    if name == "character.list":
        raise httpx.ConnectError("refused")
    if request.url.params.get("video_id") == "rendered":
        return httpx.Response(200, json={"code": 0, "message": "", "data": VIDEO})
    waiting += 1
    # Connecting starts several tasks: when it is cancelled, trio raises a group.
    async with trio.open_nursery() if sys.argv[1] == "trio" else anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()


async def ends(work, *args, **more):
    try:
        await work(*args, **more)
    except a2v.A2VError as error:
        errors.append(error)


async def batch(client):
    async with client.batch([a2v.Job(**JOB)]) as outcomes:
        errors.extend([outcome.error async for outcome in outcomes])


async def main():
    global waiting
    client = a2v.AsyncA2V("token", transport=httpx.MockTransport(answer), rate_limit=None, max_retries=0, timeout=60)
    await ends(client.characters.list)
    try:
        await client.videos.task("v").wait(timeout=0.01)
    except a2v.A2VError as error:
        errors.append(error)
    done = client.videos.task("rendered")
    await done.refresh()
    waiting = 0
    async with anyio.create_task_group() as group:
        group.start_soon(ends, client.videos.task("v").wait)
        group.start_soon(ends, client.videos.get, "v")
        group.start_soon(ends, done.download, sys.argv[2])
        group.start_soon(batch, client)
        while waiting < 4:
            await anyio.sleep(0.01)
        await client.aclose()


anyio.run(main, backend=sys.argv[1])
for error in errors:
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied)) == (type(error), str(error))
    print(type(copied).__name__)
"""

KINDS = [*["ClientClosedError"] * 3, "SubmissionUnknownError", "TransportError", "WaitTimeoutError"]


@pytest.mark.extended
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_errors_can_be_pickled_with_tblib(backend, tmp_path) -> None:
    command = [sys.executable, "-c", PROGRAM, backend, str(tmp_path / "v.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == KINDS
