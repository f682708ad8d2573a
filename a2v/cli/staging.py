"""Recordings of this machine for a server elsewhere: ``--stage-to``."""

from __future__ import annotations

import os
import shlex
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attrs import frozen
from cyclopts import Parameter

from a2v.cli.server import Flag, Server, UsageError, needs_extra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractContextManager
    from typing import Protocol

    class Shows(Protocol):
        """What can show a note for as long as a block lasts."""

        def noting(self, note: str) -> AbstractContextManager[None]: ...  # noqa: D102


@Parameter(name="*")
@frozen(kw_only=True)
class Staging:
    """How a server gets at recordings of this machine.

    Attributes:
        stage_to: Where to upload recordings of this machine for the server, unless they are there: s3://BUCKET/PREFIX,
            gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; that of the environment variable A2V_STAGE_TO if left out.
        remove_staged: Remove what was uploaded when all has gone well; what a render may still need stays.
    """

    stage_to: str | None = None
    remove_staged: Flag = False

    @property
    def flags(self) -> str:
        """The options with which another command stages to the same place."""
        place = f" --stage-to {shlex.quote(self.stage_to)}" if self.stage_to else ""
        return place + (" --remove-staged" if self.remove_staged else "")

    def place(self, server: Server) -> str | None:
        """Where recordings are to be staged for a server, if they are.

        Raises:
            UsageError: The options contradict each other.
        """
        if server.local and (self.stage_to or self.remove_staged):
            raise UsageError("--local reads the files of this machine: leave out --stage-to and --remove-staged")
        place = None if server.local else self.stage_to or os.environ.get("A2V_STAGE_TO") or None
        if self.remove_staged and not place:
            raise UsageError("--remove-staged is about what --stage-to uploads: add it, or set A2V_STAGE_TO")
        return place

    @asynccontextmanager
    async def open(
        self, server: Server, *audio_urls: str, days: int = 1
    ) -> AsyncIterator[Callable[[str, Shows], Awaitable[str]]]:
        """For as long as the block lasts, a function that turns what ``read_audio`` gave into what the server can fetch.

        It is to be called before a submission, and long before only if the URL it gives is to be good for more than a
        day. A recording is uploaded once, however often and by whomever it is asked for; URLs of others pass as they are.

        Args:
            server: Who is to fetch the recordings.
            audio_urls: All that the function will be asked for.
            days: For how long a URL is to be good.

        Raises:
            UsageError: The packages of the extra ``staging`` are missing.
            ConfigurationError: There can be no such place.
            StagingError: Also of the function: a recording cannot be uploaded, or cannot be removed.
        """
        place = self.place(server)
        if place is None or not any(map(_is_file, audio_urls)):
            yield _as_it_is
            return
        with needs_extra():
            from a2v.staging import AsyncStager  # noqa: PLC0415  # an extra
        async with AsyncStager(place, expires_in=days * 86400.0, remove=self.remove_staged) as stager:

            async def reach(audio_url: str, output: Shows) -> str:
                if not _is_file(audio_url):
                    return audio_url
                path = Path(url2pathname(urlsplit(audio_url).path))
                with output.noting(f"uploading {path.name}"):
                    return await stager.url(path)

            yield reach

    async def foresee(self, server: Server, audio_url: str) -> str:
        """What the function of ``open`` would make of a URL, without an upload.

        Raises:
            UsageError: The packages of the extra ``staging`` are missing.
            ConfigurationError: There can be no such place.
            StagingError: The file cannot be read, or no URL can be signed.
        """
        place = self.place(server)
        if place is None or not _is_file(audio_url):
            return audio_url
        with needs_extra():
            from a2v.staging.stager import preview_url  # noqa: PLC0415  # an extra
        return await preview_url(Path(url2pathname(urlsplit(audio_url).path)), place)


def _is_file(audio_url: str) -> bool:
    return audio_url.startswith("file:")


async def _as_it_is(audio_url: str, _: Shows) -> str:
    return audio_url
