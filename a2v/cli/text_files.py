"""Files that arguments name, and that may be pipes: a text to speak, captions, a transcript."""

from __future__ import annotations

import codecs
import signal
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from a2v.cli.options import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the block at once, even if it waits for the writer of a pipe.

    The event loop's own handler cancels the task, which would not notice before the end of the block.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def read_text_file(path: Path | None, name: str, *, max_bytes: int, limit: str) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark.

    Args:
        path: The file; ``None`` for standard input.
        name: Its name in messages.
        max_bytes: The size of the largest file.
        limit: That size in messages.

    Raises:
        UsageError: It cannot be read, is too long, or is in another encoding.
    """
    try:
        with interruptible(), path.open("rb") if path else nullcontext(sys.stdin.buffer) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise UsageError(f"{name} is too long: more than {limit}")
    encoding, shown = ("utf-16", "UTF-16") if data.startswith(_UTF_16) else ("utf-8-sig", "UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        # `error.object` is the data without the mark of UTF-8.
        line = error.object[: error.start].decode(error.encoding, "ignore").count("\n") + 1
        byte = error.object[error.start]
        raise UsageError(f"{name}, line {line}, is not {shown}: byte 0x{byte:02x}") from None
