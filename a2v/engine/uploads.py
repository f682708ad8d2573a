"""Recordings that clients have uploaded, by the SHA-256 of their content.

An upload is a file and a row in the database. The row is added once the file is complete, and removed before the file, so each row
has a file. The file is named after its hash, which makes uploads idempotent: two clients that send the same recording at the same time
write two temporary files, and the second rename changes nothing.

Clients can send uploads and use them in jobs, but not read them: no route sends their content. An ``audio_url`` of the form
``upload://<sha256>`` is only valid for this engine. It depends on the content alone, so a client that continues a batch
submits nothing twice.

An upload expires a day after it was last sent or looked up, unless an unfinished task needs it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from typing import TYPE_CHECKING, BinaryIO

import anyio
import anyio.to_thread

from a2v._core import wire
from a2v.engine.data_folder import ensure_private_folder, move_durably
from a2v.engine.errors import AudioError
from a2v.engine.recording_fetcher import MAX_BYTES, MAX_SECONDS, MIN_PROGRESS_BYTES, PROGRESS_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from a2v.engine.task_store import TaskStore, Upload

UPLOAD = "upload://"
"""How the ``audio_url`` of an upload begins."""
UPLOAD_GONE = (
    "audio_url: there is no such upload, or it was deleted a day after its last use: upload the recording again"
)
KEEP_SECONDS = 86_400.0
"""How long an upload is kept after its last use."""
_PART_SUFFIX = ".part"
_MIB = 1024 * 1024
_MAX_NAME = 200  # characters


class UploadError(Exception):
    """The engine rejects an upload; the message says what is wrong and what to do.

    Args:
        status: The HTTP status.
        message: The message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Uploads:
    """The uploads of one data folder.

    Args:
        store: The database.
        folder: The data folder.
        max_mib: The space that all uploads may use together, in MiB.

    Attributes:
        limits: The limits of uploads, as the API reports them.
        received: The number of uploads received since the start.
    """

    def __init__(self, store: TaskStore, folder: Path, max_mib: int) -> None:
        self.limits: wire.UploadLimits = wire.UploadLimits(
            max_bytes=MAX_BYTES, max_seconds=MAX_SECONDS, keep_seconds=KEEP_SECONDS
        )
        self.received: int = 0
        self._store = store
        self._folder = folder / "uploads"
        self._max_mib = max_mib
        self._arriving = 0

    def recover(self) -> None:
        """Create the folder; delete files without a row, and rows without a file. Call it once, at the start.

        Raises:
            OSError: The folder cannot be used.
            ConfigurationError: Likewise.
        """
        ensure_private_folder(self._folder)
        known = {upload.sha256 for upload in self._store.uploads()}
        present = {path.name for path in self._folder.iterdir()}
        for name in present - known:
            (self._folder / name).unlink()
        for sha256 in known - present:
            self._store.delete_upload(sha256)

    @property
    def used_bytes(self) -> int:
        """The space that uploads use, including those that are arriving."""
        return self._store.uploads_size() + self._arriving

    def find(self, sha256: str, name: str = "") -> Upload | None:
        """Return an upload, and keep it for another day; ``None`` if there is none.

        Args:
            sha256: The hash of its content.
            name: Its new name; empty: unchanged.
        """
        return self._store.keep_upload(sha256, time.time() + KEEP_SECONDS, clean_name(name) if name else None)

    async def receive(self, sha256: str | None, name: str, size: int, blocks: AsyncIterator[bytes]) -> Upload:
        """Store an upload.

        Args:
            sha256: The hash that the content must have; ``None``: any.
            name: The name of the recording, to display.
            size: The announced size in bytes.
            blocks: The content.

        Raises:
            UploadError: It is too large, too slow or incomplete, does not have this hash, or there is no space.
            OSError: It cannot be written.
        """
        self._check_size(size)
        self._arriving += size
        part = self._folder / f"{secrets.token_hex(16)}{_PART_SUFFIX}"
        try:
            with anyio.fail_after(MAX_SECONDS):
                digest = await _write(part, size, blocks)
            if sha256 not in (None, digest):
                raise UploadError(
                    409, "the content does not have this SHA-256: the file was changed while it was sent, or damaged"
                )
            await anyio.to_thread.run_sync(move_durably, part, self._folder / digest)
            self.received += 1
            return self._store.add_upload(digest, clean_name(name), size, time.time() + KEEP_SECONDS)
        except TimeoutError:
            raise UploadError(
                408,
                f"the upload took longer than {MAX_SECONDS:.0f} s; send the recording in a compressed format, such as FLAC",
            ) from None
        finally:
            self._arriving -= size
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: part.unlink(missing_ok=True))

    def _check_size(self, size: int) -> None:
        if size == 0:
            raise UploadError(400, "the recording is empty")
        if size > MAX_BYTES:
            raise UploadError(
                413,
                f"the recording is longer than {MAX_BYTES // _MIB} MiB; send it in a compressed format, such as FLAC",
            )
        if self.used_bytes + size > self._max_mib * _MIB:
            raise UploadError(
                507,
                f"uploads use all of their {self._max_mib} MiB; they are deleted a day after their last use, or raise "
                "max_uploads_mib (--max-uploads-mib)",
            )

    def fetch(self, audio_url: str, destination: Path) -> None:
        """Copy or link an upload into a file.

        Raises:
            AudioError: It is no longer there.
            OSError: The file cannot be written.
        """
        source = self._folder / audio_url.removeprefix(UPLOAD)
        try:
            destination.unlink(missing_ok=True)
            try:
                os.link(source, destination)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without hard links
                shutil.copyfile(source, destination)
        except FileNotFoundError:
            raise AudioError(UPLOAD_GONE) from None

    def sweep(self) -> int:
        """Delete expired uploads; return how many could not be deleted."""
        failures = 0
        for sha256 in self._store.expired_uploads(time.time()):
            self._store.delete_upload(sha256)
            try:
                (self._folder / sha256).unlink(missing_ok=True)
            except OSError:
                failures += 1
        return failures


def clean_name(name: str) -> str:
    """Return the name in a path, with its unprintable characters replaced by spaces, and shortened to 200 characters."""
    base = re.split(r"[/\\]", name)[-1]
    printable = "".join(character if character.isprintable() else " " for character in base).strip()
    return printable[:_MAX_NAME] or "recording"


async def _write(part: Path, size: int, blocks: AsyncIterator[bytes]) -> str:
    """Write a file; return the hash of its content."""
    digest, received, pending = hashlib.sha256(), 0, bytearray()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:

        def write(block: bytes, target: BinaryIO = file) -> None:
            digest.update(block)
            target.write(block)

        with anyio.move_on_after(PROGRESS_SECONDS) as reading:
            milestone = MIN_PROGRESS_BYTES
            async for block in blocks:
                received += len(block)
                pending += block
                if received > size:
                    raise UploadError(400, "the body is longer than its Content-Length")
                if received >= milestone:
                    milestone = received + MIN_PROGRESS_BYTES
                    reading.deadline = anyio.current_time() + PROGRESS_SECONDS
                if len(pending) >= _MIB:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(write, bytes(pending))
                    pending.clear()
        if reading.cancelled_caught:
            raise UploadError(
                408, f"the client sent less than {MIN_PROGRESS_BYTES // 1024} KiB in {PROGRESS_SECONDS:.0f} s"
            )
        await anyio.to_thread.run_sync(write, bytes(pending))
    if received != size:
        raise UploadError(400, "the body is shorter than its Content-Length")
    return digest.hexdigest()
