"""A web service that makes videos and reports their progress: uvicorn service:app --app-dir examples.

POST /videos with {"model_id": …, "audio_url": …} returns 202 with a video_id as soon as the server has accepted the job.
GET /videos/{video_id}/events sends each change as a server-sent event, until the video reaches a final status.

The service is stateless: it only needs a video_id, so browsers can reconnect after a restart or a lost connection.
The token comes from A2V_TOKEN, the server from A2V_BASE_URL. Add your own authentication.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

import a2v


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, a2v.AsyncA2V]]:
    """Create one client for the whole service, so that all requests share its connections and its rate limit."""
    async with a2v.AsyncA2V() as client:
        yield {"client": client}


def _client(request: Request) -> a2v.AsyncA2V:
    client: a2v.AsyncA2V = request.state.client
    return client


logger = logging.getLogger(__name__)
app = FastAPI(lifespan=lifespan)
Client = Annotated[a2v.AsyncA2V, Depends(_client)]


class Order(BaseModel):
    """The body of POST /videos."""

    model_id: str
    audio_url: str


@app.post("/videos", status_code=202)
async def submit(order: Order, client: Client) -> dict[str, str]:
    """Submit a job without waiting for the render."""
    task = await client.videos.generate(model_id=order.model_id, audio_url=order.audio_url)
    return {"video_id": task.video_id, "events": f"/videos/{task.video_id}/events"}


@app.get("/videos/{video_id}/events", response_class=EventSourceResponse)
async def events(video_id: str, client: Client) -> AsyncIterator[ServerSentEvent]:
    """Stream each change. A thousand listeners of one video cost as many requests as one."""
    try:
        async with aclosing(client.videos.task(video_id).watch()) as snapshots:
            async for video in snapshots:
                yield ServerSentEvent(data={"status": video.status, "video_url": video.video_url})
    except a2v.A2VError as error:
        yield ServerSentEvent(event="failure", data=str(error))
    # The page closes the connection on this event. Without it, browsers reconnect.
    yield ServerSentEvent(event="end", data=video_id)


# By the response to a submission, in the order of the checks; docs/services.md explains the choice.
NOTHING_SUBMITTED = (a2v.RateLimitError, a2v.TransportError)
OPERATOR = (a2v.AuthenticationError, a2v.PermissionDeniedError, a2v.ConfigurationError)


@app.exception_handler(a2v.A2VError)
async def to_response(_: Request, error: a2v.A2VError) -> JSONResponse:
    """Return the error, and whether the caller may retry."""
    message = str(error)
    if isinstance(error, NOTHING_SUBMITTED):
        status = 503
    elif isinstance(error, a2v.SubmissionUnknownError):
        status = 424  # not 5xx, which clients, proxies and task queues retry
    elif isinstance(error, OPERATOR):
        logger.error("the service cannot submit videos: %s", error)
        status, message = 500, "the service is not set up correctly; its operator has the details"
    elif isinstance(error, a2v.InvalidArgumentError | a2v.APIError):
        status = 422
    else:
        status = 500
    again = isinstance(error, NOTHING_SUBMITTED)
    headers = {"Retry-After": "60"} if again else None
    return JSONResponse({"error": type(error).__name__, "message": message, "try_again": again}, status, headers)
