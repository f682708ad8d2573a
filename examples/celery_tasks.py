"""Celery: a task submits a video, another waits for it and saves it.

celery --workdir examples --app celery_tasks worker --pool threads --concurrency 50

Start one with ``submit.delay(orders.add(model_id, audio_url))``. Both tasks may run again after a crash. The broker comes from
CELERY_BROKER_URL, the token from A2V_TOKEN, the server from A2V_BASE_URL.
"""

from functools import cache

import orders
from celery import Celery

import a2v

app = Celery("videos")
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)  # a lost worker's tasks run again
NOTHING_WAS_SUBMITTED = (a2v.TransportError, a2v.RateLimitError)
STILL_THERE = (a2v.WaitTimeoutError, a2v.TransportError, a2v.RateLimitError, a2v.ServerError, a2v.DownloadError)
# Brokers deliver a task again that runs for too long: RabbitMQ after 30 minutes, Redis after an hour.
WAIT_SECONDS = 600


@cache
def client() -> a2v.A2V:
    """The only client of this process, made by its first task: after the fork of a worker pool, shared by its threads."""
    return a2v.A2V()


@app.task(autoretry_for=NOTHING_WAS_SUBMITTED, retry_backoff=10, max_retries=20)
def submit(number: int) -> None:
    """Submit an order, unless an earlier run may have done so."""
    with orders.submitting(number) as order:
        if order.video_id is None:
            order.video_id = client().videos.generate(model_id=order.model_id, audio_url=order.audio_url).video_id
    follow.delay(order.video_id)


@app.task(autoretry_for=STILL_THERE, default_retry_delay=10, max_retries=500)
def follow(video_id: str) -> None:
    """Wait for a video and save it. This submits nothing, so every run may be repeated."""
    client().videos.task(video_id).download(f"videos/{video_id}.mp4", overwrite=True, timeout=WAIT_SECONDS)
