"""Prefect: a flow of two tasks, of which one submits a video and the other waits for it and saves it.

python examples/prefect_flow.py MODEL_ID AUDIO_URL

A run that crashed may be started again, with the same number. The token comes from A2V_TOKEN, the server from A2V_BASE_URL.
"""

import sys
from functools import cache
from typing import Any

import orders
from prefect import flow, task

import a2v

NOTHING_WAS_SUBMITTED = (a2v.TransportError, a2v.RateLimitError)
STILL_THERE = (a2v.WaitTimeoutError, a2v.TransportError, a2v.RateLimitError, a2v.ServerError, a2v.DownloadError)


@cache
def client() -> a2v.AsyncA2V:
    """The only client of this process; it works in any event loop."""
    return a2v.AsyncA2V()


def only_after(*errors: type[Exception]) -> Any:
    """Let Prefect retry these errors only."""

    async def condition(_task: Any, _run: Any, state: Any) -> bool:
        return isinstance(await state.aresult(raise_on_failure=False), errors)

    return condition


@task(retries=20, retry_delay_seconds=30, retry_condition_fn=only_after(*NOTHING_WAS_SUBMITTED))
async def submit(number: int) -> str:
    """Submit an order, unless an earlier run may have done so."""
    with orders.submitting(number) as order:
        if order.video_id is None:
            submitted = await client().videos.generate(model_id=order.model_id, audio_url=order.audio_url)
            order.video_id = submitted.video_id
    return order.video_id


@task(retries=20, retry_delay_seconds=30, retry_condition_fn=only_after(*STILL_THERE))
async def follow(video_id: str) -> str:
    """Wait for a video and save it. Nothing is submitted, so any run may be repeated."""
    return str(await client().videos.task(video_id).download(f"videos/{video_id}.mp4", overwrite=True))


@flow
async def make_video(number: int) -> str:
    """Make the video of an order and return its path."""
    return await follow(await submit(number))


if __name__ == "__main__":
    import anyio

    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(anyio.run(make_video, orders.add(sys.argv[1], sys.argv[2])))
