"""Reads the headers of recordings where FFmpeg would misread them.

Programs that write to a pipe do not know the size of the sound when they write the header, so they write 0 or a huge number. FFmpeg
then reads nothing, rejects the file, or reports hours of sound. ``size_patches`` returns the bytes that FFmpeg should read instead. A
plausible size is not patched but checked: if the file has less, it is cut off, which FFmpeg would not report.

Some demuxers stop at the end of the first of several concatenated recordings, so ``recording_starts`` finds the others.
"""

from __future__ import annotations

import io
import re
import struct
from typing import IO, TYPE_CHECKING

from a2v.engine.errors import AudioError
from a2v.engine.formats import read_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from a2v.engine.formats import FileFormat

MAX_SOUND_BYTES = 512 << 20
"""Sizes of sound from here on, as stated in headers, are placeholders: a recording has at most 100 MiB."""

_MAX_CHUNKS = 1000
_BLOCK_BYTES = 1 << 20


def size_patches(file: IO[bytes], format: FileFormat) -> dict[int, bytes]:
    """Return the bytes to read at some offsets instead of placeholder sizes.

    Raises:
        AudioError: The file is cut off, or has thousands of chunks before the sound.
    """
    find = _SIZE_PATCHES.get(format.name)
    return find(file, format.start) if find else {}


def _is_real_size(stated: int, available: int) -> bool:
    """Whether the size of the sound in a header is real, and not a placeholder.

    Raises:
        AudioError: The size is real, and the file has less.
    """
    if not 0 < stated < MAX_SOUND_BYTES:
        return False
    if available < 0.9 * stated:
        raise AudioError(f"The recording is cut off: it states {stated} bytes of sound and has {available}.")
    return True


def _file_size(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def _wav_patches(file: IO[bytes], start: int) -> dict[int, bytes]:
    """For a WAV file, FFmpeg reads to the end; for RF64 and BW64, it relies on their sizes of 64 bits."""
    end, is_long, long_size = _file_size(file), read_at(file, start, 4) in (b"RF64", b"BW64"), 0
    for name, size, offset in _chunks(file, start):
        if name == b"ds64":
            # The sizes of the file and of the sound.
            long_size = int.from_bytes(read_at(file, offset + 8, 8), "little")
        if name == b"data":
            _is_real_size(long_size if is_long and size == 0xFFFF_FFFF else size, end - offset)
            # Read as a WAV file, it needs no size.
            return {start: b"RIFF"} if is_long and not 0 < long_size < MAX_SOUND_BYTES else {}
    return {}


def _aiff_patches(file: IO[bytes], start: int) -> dict[int, bytes]:
    """FFmpeg needs the sizes of the file and of the sound, and rejects numbers of frames with the highest bit set."""
    end, patches = _file_size(file), {}
    if not 0 < int.from_bytes(read_at(file, start + 4, 4), "big") < MAX_SOUND_BYTES:
        patches[start + 4] = min(end - start - 8, MAX_SOUND_BYTES).to_bytes(4, "big")
    for name, size, offset in _chunks(file, start):
        if name == b"COMM" and read_at(file, offset + 2, 1) >= b"\x80":
            patches[offset + 2] = b"\x7f\xff\xff\xff"
        # The chunk has eight bytes before the sound.
        if name == b"SSND" and not _is_real_size(size - 8, end - offset - 8):
            patches[offset - 4] = min(end - offset, MAX_SOUND_BYTES).to_bytes(4, "big")
            break
    return patches


def _w64_patches(file: IO[bytes], start: int) -> dict[int, bytes]:
    end, patches = _file_size(file), {}
    head = read_at(file, start, 256 << 10)
    if not 0 < int.from_bytes(head[16:24], "little") < MAX_SOUND_BYTES:
        patches[start + 16] = (end - start).to_bytes(8, "little")
    offset = head.find(b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a") + 16
    # The size includes the chunk's identifier and itself: 24 bytes.
    if offset >= 16 and not _is_real_size(
        int.from_bytes(head[offset : offset + 8], "little") - 24, end - start - offset - 8
    ):
        patches[start + offset] = (end - start - offset + 16).to_bytes(8, "little")
    return patches


def _au_patches(file: IO[bytes], start: int) -> dict[int, bytes]:
    offset, size = struct.unpack(">II", read_at(file, start + 4, 8).ljust(8, b"\0"))
    return {} if _is_real_size(size, _file_size(file) - start - offset) else {start + 8: b"\xff" * 4}


def _caf_patches(file: IO[bytes], start: int) -> dict[int, bytes]:
    end, offset = _file_size(file), start + 8
    for _ in range(_MAX_CHUNKS):
        name, size = struct.unpack(">4sq", read_at(file, offset, 12).ljust(12, b"\0"))
        if name == b"data":
            # The chunk has four bytes before the sound; a size of -1 means "to the end".
            return {} if _is_real_size(size - 4, end - offset - 16) else {offset + 4: b"\xff" * 8}
        offset += 12 + size
        if size < 0 or offset >= end:
            break
    return {}


_SIZE_PATCHES: dict[str, Callable[[IO[bytes], int], dict[int, bytes]]] = {
    "wav": _wav_patches,
    "aiff": _aiff_patches,
    "w64": _w64_patches,
    "au": _au_patches,
    "caf": _caf_patches,
}


def _chunks(file: IO[bytes], start: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the size and the offset of each chunk of a WAV or AIFF file."""
    order = ">" if read_at(file, start, 4) in (b"RIFX", b"FORM") else "<"
    offset = start + 12
    for _ in range(_MAX_CHUNKS):
        head = read_at(file, offset, 8)
        if len(head) < 8:
            return
        name, size = struct.unpack(f"{order}4sI", head)
        yield name, size, offset + 8
        offset += 8 + size + size % 2
    raise AudioError(f"The recording is damaged: there are more than {_MAX_CHUNKS} chunks before the sound.")


def states_duration(file: IO[bytes], format: FileFormat) -> bool:
    """Whether FFmpeg reads the duration from the file; otherwise it estimates one from the bit rate."""
    if format.name != "mp3":
        return format.name not in ("aac", "amr")
    frame = read_at(file, format.start, 192)
    return b"Xing" in frame or b"Info" in frame or b"VBRI" in frame


def is_fragmented(file: IO[bytes], format: FileFormat) -> bool:
    """Whether an MP4 is written in fragments, as streams are; its header then does not state the whole duration."""
    offset = format.start
    for _ in range(_MAX_CHUNKS if format.name == "mp4" else 0):
        size, name = struct.unpack(">I4s", read_at(file, offset, 8).ljust(8, b"\0"))
        if name == b"moof":
            return True
        if size == 1:
            size = int.from_bytes(read_at(file, offset + 8, 8), "big")
        if size < 8:
            break
        offset += size
    return False


def is_encrypted(file: IO[bytes], format: FileFormat) -> bool:
    """Whether an MP4 has an encrypted track (DRM of iTunes, Audible or streaming services)."""
    return format.name == "mp4" and any(True for _ in _find_all(file, rb"sinf\x00\x00\x00.frma|ftypaax[ c]"))


_START_PATTERNS = {
    "ogg": rb"OggS\x00[\x02\x06]",  # a page that begins a stream
    "flac": rb"fLaC[\x00\x80]\x00\x00\x22",
    "matroska": rb"\x1aE\xdf\xa3.{1,8}\x42\x86\x81\x01",
}


def recording_starts(file: IO[bytes], format: FileFormat) -> list[int]:
    """Return the offsets of the recordings that are concatenated in a file; only the first one if the demuxer reads them all."""
    starts = [format.start]
    if format.name in _START_PATTERNS:
        next_page = -1
        for offset in _find_all(file, _START_PATTERNS[format.name]):
            # In a recording with several streams, their first pages follow each other immediately.
            if offset > format.start and offset != next_page:
                starts.append(offset)
            if format.name == "ogg":
                next_page = offset + _ogg_page_size(read_at(file, offset, 27 + 255))
    return starts


def _ogg_page_size(head: bytes) -> int:
    count = head[26] if len(head) > 26 else 0
    return 27 + count + sum(head[27 : 27 + count])


def _find_all(file: IO[bytes], pattern: bytes) -> Iterator[int]:
    """Yield the offsets of all matches of a pattern, which must not match more than 16 bytes."""
    overlap, base, before = 15, 0, b""
    last = -1
    while True:
        file.seek(base)
        block = file.read(_BLOCK_BYTES)
        if not block:
            return
        data = before + block
        for match in re.finditer(pattern, data, re.DOTALL):
            offset = base - len(before) + match.start()
            if offset > last:
                yield offset
                last = offset
        base += len(block)
        before = data[-overlap:]
