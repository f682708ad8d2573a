"""What is in a file of this machine, and what it is called in a store."""

from __future__ import annotations

import hashlib
import mimetypes
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import frozen

from a2v._unicode_paths import find_existing
from a2v.errors import StagingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.staging.work import Stop

_CHUNK = 1 << 20


@frozen
class Recording:
    """What is in a file, and what it is called in the store."""

    path: Path
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its own name stays here: it may have any letter, and tell what is nobody's business."""
        suffix = self.path.suffix.lower()
        # Some servers go by the extension.
        return self.sha256 + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")

    @property
    def kind(self) -> str:
        """Its media type."""
        return mimetypes.guess_type(f"_{self.path.suffix}")[0] or "application/octet-stream"


def open_file(path: Path) -> BinaryIO:
    """Open a recording.

    Raises:
        StagingError: It is none that can be read.
    """
    path = find_existing(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):  # opening a pipe would wait for somebody to write
            return path.open("rb")
        what = "is a folder; give a file in it" if stat.S_ISDIR(mode) else "is not a regular file"
    except FileNotFoundError:
        what = "does not exist"
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"
    raise StagingError(f"{path} {what}")


def look(file: BinaryIO, path: Path, stop: Stop) -> Recording:
    """Find out what is in a file.

    Raises:
        StagingError: It is empty, or cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in chunks(file, path, stop):
        digest.update(chunk)
        size += len(chunk)
    if not size:
        raise StagingError(f"{path} is empty")
    return Recording(path, size, digest.hexdigest())


def chunks(file: BinaryIO, path: Path, stop: Stop) -> Iterator[bytes]:
    """A file from its beginning, piece by piece.

    Raises:
        StagingError: It cannot be read.
    """
    try:
        file.seek(0)
        while chunk := file.read(_CHUNK):
            stop.check()
            yield chunk
    except OSError as error:
        reason = error.strerror or error
    else:
        return
    raise StagingError(f"{path} cannot be read: {reason}")
