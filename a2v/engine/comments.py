"""Writes comments into GIF and WebP files, because FFmpeg's muxers do not.

In a GIF, a comment is a comment extension, a list of blocks of up to 255 bytes; it goes before the first picture. In a WebP, it is the tag
``ImageDescription`` in an ``EXIF`` chunk after the last picture. A flag in the ``VP8X`` chunk announces Exif data, so a file without this
chunk gets one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_EXIF_FLAG, _ALPHA_FLAG = 0x08, 0x10
_IMAGE_DESCRIPTION, _ASCII = 0x010E, 2  # the Exif tag and its type
_COPIED_BYTES = 1 << 20  # at a time


def add_comment(path: Path, text: str) -> None:
    """Add a comment to a GIF or WebP file that has none.

    Args:
        path: The file.
        text: ASCII characters.
    """
    with path.open("r+b") as file:
        if file.read(3) == b"GIF":
            _add_to_gif(file, text.encode("ascii"))
        else:
            _add_to_webp(file, text.encode("ascii"))


def _add_to_gif(file: BinaryIO, text: bytes) -> None:
    file.seek(10)
    (flags,) = file.read(1)
    colour_table_bytes = 3 * (2 << (flags & 7)) if flags & 0x80 else 0
    blocks = [text[start : start + 255] for start in range(0, len(text), 255)]
    _insert(file, 13 + colour_table_bytes, b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")


def _add_to_webp(file: BinaryIO, text: bytes) -> None:
    file.seek(12)
    head = file.read(18)
    if head[:4] == b"VP8X":
        _overwrite(file, 20, bytes([head[8] | _EXIF_FLAG]))
    else:
        _insert(file, 12, _extended_header(head))
    value = text + b"\0"
    # A TIFF header, and a directory at offset 8 with one entry, whose value is at offset 26.
    exif = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, _IMAGE_DESCRIPTION, _ASCII, len(value), 26, 0) + value
    chunk = b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
    end = file.seek(0, 2)
    _overwrite(file, end, chunk)
    _overwrite(file, 4, struct.pack("<I", end + len(chunk) - 8))


def _extended_header(head: bytes) -> bytes:
    """Return the ``VP8X`` chunk for a file with one picture, given the first bytes of the picture's chunk."""
    if head[:4] == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 9)
        width, height, has_alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1
    else:
        width, height = (side % 0x4000 - 1 for side in struct.unpack_from("<HH", head, 14))
        has_alpha = 0
    sizes: bytes = width.to_bytes(3, "little") + height.to_bytes(3, "little")
    return b"VP8X" + struct.pack("<II", 10, _EXIF_FLAG | has_alpha * _ALPHA_FLAG) + sizes


def _overwrite(file: BinaryIO, offset: int, content: bytes) -> None:
    file.seek(offset)
    file.write(content)


def _insert(file: BinaryIO, offset: int, content: bytes) -> None:
    """Insert bytes, after moving the rest of the file back, from its end to its beginning."""
    end = file.seek(0, 2)
    while end > offset:
        start = max(offset, end - _COPIED_BYTES)
        file.seek(start)
        moved = file.read(end - start)
        _overwrite(file, start + len(content), moved)
        end = start
    _overwrite(file, offset, content)
