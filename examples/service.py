"""A web service that makes videos and reports their progress: uvicorn service:app --app-dir examples.

POST /videos with {"model_id": …, "audio_url": …} returns 202 with a video_id as soon as the server has accepted the job.
GET /videos/{video_id}/events sends each change as a server-sent event, until the video reaches a final status.

The service is stateless: it only needs a video_id, so browsers can reconnect after a restart or a lost connection.
The token comes from A2V_TOKEN, the server from A2V_BASE_URL. Add your own authentication.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
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


app = FastAPI(lifespan=lifespan)
Client = Annotated[a2v.AsyncA2V, Depends(_client)]


class Order(BaseModel):
    """The body of POST /videos."""

    model_id: str
    audio_url: str


@app.post("/videos", status_code=202)
async def submit(order: Order, client: Client) -> dict[str, str]:
    """Submit a job without waiting for the render."""
    try:
        task = await client.videos.generate(model_id=order.model_id, audio_url=order.audio_url)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
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
    yield ServerSentEvent(
        event="end", data=video_id
    )  # on which the page closes the connection; browsers reconnect otherwise


@app.exception_handler(a2v.A2VError)
async def to_response(_: Request, error: a2v.A2VError) -> JSONResponse:
    """Return the error, and whether the caller may retry."""
    known = isinstance(error, a2v.APIError) and 400 <= error.status_code < 500
    status = 503 if isinstance(error, a2v.RateLimitError | a2v.TransportError) else 422 if known else 502
    again = isinstance(error, a2v.RateLimitError | a2v.TransportError)  # nothing was submitted
    return JSONResponse({"error": type(error).__name__, "message": str(error), "try_again": again}, status)
