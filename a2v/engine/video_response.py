"""Sends a finished video, or one part of it.

Unlike Starlette's ``FileResponse`` it has the file open before it answers: a video that is removed meanwhile is still sent
whole, and one that is gone is a 404 instead of a broken reply. One range is served; a request for several gets the whole
file, as HTTP allows, since thousands of them in one request cost seconds.
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
_RANGE = re.compile(r"bytes=\s*(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))\s*", re.IGNORECASE)


class VideoResponse(Response):
    """The reply with a video.

    Args:
        file: The open file; is closed when it has been sent.
    """

    media_type = "video/mp4"

    def __init__(self, file: anyio.AsyncFile[bytes]) -> None:
        super().__init__()
        self.status_code: int = 200
        self._file = file
        status = os.fstat(file.wrapped.fileno())
        self._size = status.st_size
        self.headers["Accept-Ranges"] = "bytes"
        self.headers["ETag"] = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        self.headers["Last-Modified"] = formatdate(status.st_mtime, usegmt=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            start, end = self._choose(scope)
            self.headers["Content-Length"] = str(end - start)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD" or start == end:
                await send({"type": "http.response.body", "body": b""})
            else:
                await self._send_until_hung_up(start, end, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._file.aclose()

    def _choose(self, scope: Scope) -> tuple[int, int]:
        """Which bytes to send; sets status and headers."""
        asked = self._asked_range(scope)
        if asked is None:
            return 0, self._size
        first, last, tail = asked
        start = max(self._size - int(tail), 0) if tail else int(first)
        end = min(int(last) + 1, self._size) if last else self._size
        if start >= end:
            self.status_code = 416
            self.headers["Content-Range"] = f"bytes */{self._size}"
            return 0, 0
        self.status_code = 206
        self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{self._size}"
        return start, end

    def _asked_range(self, scope: Scope) -> tuple[str, str, str] | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        found = _RANGE.fullmatch(headers.get(b"range", ""))
        if found is None or headers.get(b"if-range", self.headers["ETag"]) not in (
            self.headers["ETag"],
            self.headers["Last-Modified"],
        ):
            return None
        first, last, tail = (text or "" for text in found.groups())
        # A range that ends before it begins is no range, and is ignored.
        return None if last and int(last) < int(first) else (first, last, tail)

    async def _send_until_hung_up(self, start: int, end: int, receive: Receive, send: Send) -> None:
        async def stop_when_hung_up() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            sending.cancel_scope.cancel()

        async with anyio.create_task_group() as sending:
            sending.start_soon(stop_when_hung_up)
            await self._file.seek(start)
            while start < end:
                block = await self._file.read(min(BLOCK, end - start))
                if not block:
                    raise EOFError("the file of a video became shorter while it was sent")
                start += len(block)
                await send({"type": "http.response.body", "body": block, "more_body": start < end})
            sending.cancel_scope.cancel()
