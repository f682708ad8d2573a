"""The file beside a journal."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Self

from a2v.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NOTE_SIZE = 4096


class SideFile:
    """The file beside the journal: it is locked while a batch runs, and has room for one note when the disk is full."""

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_name(f"{journal.name}.lock")
        self._journal = journal

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file)
            if os.fstat(self._file).st_size < _NOTE_SIZE:
                self.clear()
        except BaseException as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError | PermissionError):
                raise JournalError(
                    f"another process works on {self._journal}; two would pay for the same jobs"
                ) from None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def note(self, facts: Mapping[str, str]) -> bool:
        """Write something down; tell whether that worked."""
        try:
            self._write(json.dumps(facts))
        except OSError:
            return False
        return True

    def read(self) -> dict[str, str] | None:
        """What was written down and not cleared since."""
        os.lseek(self._file, 0, os.SEEK_SET)
        noted = os.read(self._file, _NOTE_SIZE).decode(errors="replace").strip()
        if not noted:
            return None
        try:
            facts = json.loads(noted)
            return {"identity": facts["identity"], "video_id": facts["video_id"]}
        except (ValueError, TypeError, KeyError):
            raise JournalError(f"{self.path} should name a video that was submitted, and is damaged") from None

    def clear(self) -> None:
        """Make room, or keep it: its blocks are there already when the disk is full."""
        self._write("")

    def _write(self, text: str) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, text.encode().ljust(_NOTE_SIZE))
        os.fsync(self._file)


def _lock(file: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt  # noqa: PLC0415  # of this system only

        os.lseek(file, _NOTE_SIZE, os.SEEK_SET)  # behind the note, for what is locked cannot be read
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415  # of the others only

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
