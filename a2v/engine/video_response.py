"""Sends a finished video, or a range of it, to a client.

Starlette's ``FileResponse`` opens the file after the response has begun, so the response would break if ``keep_days`` deleted the video
in between. Here the file is opened first: a video that is deleted meanwhile is still sent completely, and one that is already deleted is
a 404. Only single ranges are served. A request for several gets the whole file, as HTTP allows, because thousands of ranges in one
request would take seconds to process.
"""

from __future__ import annotations

import os
import re
from email.utils import formatdate
from typing import TYPE_CHECKING

import anyio
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

BLOCK = 64 * 1024
"""How many bytes are sent at a time."""
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".vtt": "text/vtt",
}
"""The types of videos and captions, by the extensions of their names."""
_RANGE = re.compile(r"bytes=\s*(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))\s*", re.IGNORECASE)


class VideoResponse(Response):
    """A response with a video, or another file.

    Args:
        file: The open file; closed after the response.
        media_type: The media type of the file.
    """

    def __init__(self, file: anyio.AsyncFile[bytes], media_type: str = "video/mp4") -> None:
        super().__init__(media_type=media_type)
        self.status_code: int = 200
        self._file = file
        status = os.fstat(file.wrapped.fileno())
        self._size = status.st_size
        self.headers["Accept-Ranges"] = "bytes"
        self.headers["ETag"] = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        self.headers["Last-Modified"] = formatdate(status.st_mtime, usegmt=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the video, or the requested range."""
        try:
            start, end = self._select_range(scope)
            self.headers["Content-Length"] = str(end - start)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD" or start == end:
                await send({"type": "http.response.body", "body": b""})
            else:
                await self._send_until_disconnect(start, end, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._file.aclose()

    def _select_range(self, scope: Scope) -> tuple[int, int]:
        """Return the first byte to send and the end; set the status and the headers accordingly."""
        requested = self._requested_range(scope)
        if requested is None:
            return 0, self._size
        first, last, tail = requested
        start = max(self._size - int(tail), 0) if tail else int(first)
        end = min(int(last) + 1, self._size) if last else self._size
        if start >= end:
            self.status_code = 416
            self.headers["Content-Range"] = f"bytes */{self._size}"
            return 0, 0
        self.status_code = 206
        self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{self._size}"
        return start, end

    def _requested_range(self, scope: Scope) -> tuple[str, str, str] | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        found = _RANGE.fullmatch(headers.get(b"range", ""))
        if found is None or headers.get(b"if-range", self.headers["ETag"]) not in (
            self.headers["ETag"],
            self.headers["Last-Modified"],
        ):
            return None
        first, last, tail = (text or "" for text in found.groups())
        # A range that ends before it begins is invalid, and is ignored.
        return None if last and int(last) < int(first) else (first, last, tail)

    async def _send_until_disconnect(self, start: int, end: int, receive: Receive, send: Send) -> None:
        async def cancel_on_disconnect() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            sending.cancel_scope.cancel()

        async with anyio.create_task_group() as sending:
            sending.start_soon(cancel_on_disconnect)
            await self._file.seek(start)
            while start < end:
                block = await self._file.read(min(BLOCK, end - start))
                if not block:
                    raise EOFError("the video file was truncated while it was being sent")
                start += len(block)
                await send({"type": "http.response.body", "body": block, "more_body": start < end})
            sending.cancel_scope.cancel()
