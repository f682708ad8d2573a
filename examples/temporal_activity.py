"""Temporal: an activity submits a video, another waits for it, sends heartbeats and saves it.

Run ``MakeVideo`` with the number of an order, in a worker that has one ``Videos`` object:

    async with a2v.AsyncA2V() as client:
        videos = Videos(client)
        await Worker(temporal, task_queue="videos", workflows=[MakeVideo], activities=[videos.submit, videos.follow]).run()
"""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    import orders

    import a2v

HEARTBEAT_SECONDS = 20.0
NOTHING_WAS_SUBMITTED = (a2v.TransportError, a2v.RateLimitError)
STILL_THERE = (a2v.WaitTimeoutError, a2v.TransportError, a2v.RateLimitError, a2v.ServerError, a2v.DownloadError)


class Videos:
    """The activities of a worker process, which share its client."""

    def __init__(self, client: a2v.AsyncA2V) -> None:
        self._client = client

    @activity.defn
    async def submit(self, number: int) -> None:
        """Submit an order, unless an earlier attempt may have done so."""
        with _retry_only(*NOTHING_WAS_SUBMITTED), orders.submitting(number) as order:
            if order.video_id is None:
                task = await self._client.videos.generate(model_id=order.model_id, audio_url=order.audio_url)
                order.video_id = task.video_id

    @activity.defn
    async def follow(self, number: int) -> str:
        """Wait for an order's video and save it. After the loss of a worker, continue from the last heartbeat."""
        details = activity.info().heartbeat_details
        task = self._client.videos.task(str(details[0] if details else orders.get(number).video_id))
        heartbeats = asyncio.create_task(_send_heartbeats(task))
        try:
            with _retry_only(*STILL_THERE):
                async with aclosing(task.watch()) as changes:
                    async for video in changes:
                        activity.heartbeat(task.video_id, video.status.value)
                return str(await task.download(f"videos/{task.video_id}.mp4", overwrite=True))
        finally:
            heartbeats.cancel()


async def _send_heartbeats(task: a2v.AsyncVideoTask) -> None:
    """Send heartbeats between the changes of status too, which may be hours apart."""
    while True:
        activity.heartbeat(task.video_id, task.video.status.value if task.video else None)
        await asyncio.sleep(HEARTBEAT_SECONDS)


@contextmanager
def _retry_only(*errors: type[Exception]) -> Iterator[None]:
    """Let Temporal retry these errors; the other errors of a2v fail the activity for good."""
    try:
        yield
    except errors:
        raise
    except (a2v.A2VError, ValueError) as error:
        raise ApplicationError(str(error), type=type(error).__name__, non_retryable=True) from error


@workflow.defn
class MakeVideo:
    """Makes the video of an order and returns its path."""

    @workflow.run
    async def run(self, number: int) -> str:
        """Run the two activities."""
        minutes, day = timedelta(minutes=15), timedelta(hours=25)
        await workflow.execute_activity_method(Videos.submit, number, start_to_close_timeout=minutes)
        return await workflow.execute_activity_method(
            Videos.follow, number, start_to_close_timeout=day, heartbeat_timeout=timedelta(seconds=90)
        )
