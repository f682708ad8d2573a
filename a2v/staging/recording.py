"""Read local recordings, and derive the names of their objects."""

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

    from a2v.staging.threads import CancelToken

_CHUNK = 1 << 20


@frozen
class Recording:
    """A local recording.

    Attributes:
        path: Its path.
        size: Its size in bytes.
        sha256: The hash of its content.
    """

    path: Path
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The object's name: hash and extension. The file's own name may be private, or contain unsafe characters."""
        suffix = self.path.suffix.lower()
        # Some servers decide by the extension.
        return self.sha256 + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")

    @property
    def kind(self) -> str:
        """The media type."""
        return mimetypes.guess_type(f"_{self.path.suffix}")[0] or "application/octet-stream"


def open_file(path: Path) -> BinaryIO:
    """Open a recording.

    Raises:
        StagingError: It cannot be read, or is not a regular file.
    """
    path = find_existing(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):  # opening a pipe would block until something is written to it
            return path.open("rb")
        what = "is a folder; give a file in it" if stat.S_ISDIR(mode) else "is not a regular file"
    except FileNotFoundError:
        what = "does not exist"
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"
    raise StagingError(f"{path} {what}")


def inspect_file(file: BinaryIO, path: Path, cancel: CancelToken) -> Recording:
    """Read and hash a file.

    Raises:
        StagingError: It is empty or cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in read_chunks(file, path, cancel):
        digest.update(chunk)
        size += len(chunk)
    if not size:
        raise StagingError(f"{path} is empty")
    return Recording(path, size, digest.hexdigest())


def read_chunks(file: BinaryIO, path: Path, cancel: CancelToken) -> Iterator[bytes]:
    """Yield the chunks of a file, from its beginning.

    Raises:
        StagingError: It cannot be read.
    """
    try:
        file.seek(0)
        while chunk := file.read(_CHUNK):
            cancel.check()
            yield chunk
    except OSError as error:
        reason = error.strerror or error
    else:
        return
    raise StagingError(f"{path} cannot be read: {reason}")
