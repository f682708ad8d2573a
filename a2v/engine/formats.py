"""Tells what kind of file a recording is, from its bytes alone.

FFmpeg's own guessing is never used: it also recognises playlists, which make it open other files. Most kinds have a fixed
signature. MP3 and AAC (ADTS) have none, only frame headers; those are accepted when three of them follow each other at the
distance that each one announces, anywhere in the first 256 KiB, because recordings of radio streams and files written to a
pipe do not begin with a frame. Signatures are looked for there, too: behind zeros, tags, and the head of an HTTP reply.
"""

from __future__ import annotations

import codecs
import io
import re
import struct
from typing import IO, TYPE_CHECKING

from attrs import frozen

from a2v.engine.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = {
    "wav": "WAV",
    "w64": "W64",
    "aiff": "AIFF",
    "au": "AU",
    "caf": "CAF",
    "amr": "AMR",
    "mp3": "MP3",
    "aac": "AAC",
    "mp4": "MP4",
    "ogg": "Ogg",
    "flac": "FLAC",
    "matroska": "WebM or Matroska",
}
"""FFmpeg's names of the kinds that are accepted, and what users call them."""

SUPPORTED = (
    "WAV (also RF64, BW64 and W64), MP3, AAC, M4A/MP4/MOV/3GP, Ogg (Opus, Vorbis, FLAC or Speex), FLAC, WebM/MKV, "
    "AIFF/AIFC, CAF, AU and AMR"
)

MOST_BYTES = 512 << 20
"""A file that claims to hold more sound than this was written by a program that did not know the length: recordings may have
100 MiB."""

_SCANNED = 256 << 10
_MOST_TAGS = 100
_MOST_CHUNKS = 1000
_BLOCK = 1 << 20
_FRAMES = 3


@frozen
class Found:
    """A kind of file, as FFmpeg calls it, and the offset of its first byte behind tags and garbage."""

    kind: str
    start: int = 0


def recognise(file: IO[bytes]) -> Found:
    """The kind of a recording.

    Raises:
        AudioError: The file is empty or of a kind that is not accepted; the message says which and how to convert it.
    """
    start = _behind_tags(file)
    starts = dict.fromkeys((start, _behind_zeros(file, start), _behind_zeros(file, 0), 0, _behind_unsafe_id3(file)))
    for at in starts:
        kind = _signature(_read(file, at, 16))
        if kind:
            return Found(kind, at)
    if not _read(file, 0, 1):
        raise AudioError("The recording is empty: the file has no bytes.")
    foreign = _foreign(_read(file, start, 4096)) or (_foreign(_read(file, 0, 4096)) if start else None)
    if foreign:
        raise AudioError(_refusal(*foreign))
    for at in starts:
        found = _first_frame(_read(file, at, _SCANNED), at)
        if found:
            return found
    for at in starts:
        # The size of an MP4's first box begins with zeros.
        begin = max(0, at - 3)
        found = _first_signature(_read(file, begin, _SCANNED), begin)
        if found:
            return found
    what = (
        "a text file, not a recording of a known kind"
        if _is_text(_read(file, 0, 4096))
        else "not a recording of a known kind"
    )
    raise AudioError(f"This is {what}. The engine can render {SUPPORTED}.")


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


# -- signatures -------------------------------------------------------------------------------------------------------

_MAGIC = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"caff", "caf"),
    (b"#!AMR\n", "amr"),
    (b"#!AMR-WB\n", "amr"),
    (b".snd", "au"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "w64"),
)
_RIFF = (b"RIFF", b"RF64", b"BW64", b"RIFX")
# QuickTime files from before 2001 have no ``ftyp``, and some programs put other boxes in front of it.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")


_PICTURES = (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1", b"ftypavif", b"ftypavis")


def _signature(head: bytes) -> str | None:
    if head[:4] in _RIFF and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in _BOXES and not head.startswith(_PICTURES, 4):
        return "mp4"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMA or WMV", "wma"),
    (8, b"AVI ", "an AVI", "avi"),
    (0, b"FLV\x01", "an FLV", "flv"),
    (0, b"\x00\x00\x01\xba", "an MPEG program stream (MPG, VOB)", "mpg"),
    (0, b"\x00\x00\x01\xb3", "an MPEG video", "mpg"),
    (0, b"wvpk", "a WavPack", "wv"),
    (0, b"MAC ", "a Monkey's Audio (APE)", "ape"),
    (0, b"TTA1", "a TTA (True Audio)", "tta"),
    (0, b"TTA2", "a TTA (True Audio)", "tta"),
    (0, b"MPCK", "a Musepack", "mpc"),
    (0, b"MP+", "a Musepack", "mpc"),
    (0, b"OFR ", "an OptimFROG", "ofr"),
    (0, b"ajkg", "a Shorten", "shn"),
    (0, b"TWIN97012000", "a TwinVQ (VQF)", "vqf"),
    (0, b"\x0b\x77", "an AC-3 (Dolby Digital)", "ac3"),
    (0, b"\x7f\xfe\x80\x01", "a DTS", "dts"),
    (0, b"\xfe\x7f\x01\x80", "a DTS", "dts"),
    (0, b"DTSHDHDR", "a DTS-HD", "dtshd"),
    (0, b"NIST_1A", "a NIST SPHERE", "sph"),
    (0, b"DSD ", "a DSD (DSF)", "dsf"),
    (0, b"FRM8", "a DSD (DSDIFF)", "dff"),
    (0, b".RMF", "a RealMedia", "rm"),
    (0, b".ra\xfd", "a RealAudio", "ra"),
    (0, b"Creative Voice File", "a Creative Voice (VOC)", "voc"),
    (0, b"#!SILK_V3", "a SILK (Skype, WeChat)", "silk"),
    (1, b"#!SILK_V3", "a SILK (Skype, WeChat)", "silk"),
    (0, b"#!AMR_MC", "a multichannel AMR", "amr"),
    (0, b"#!AMR-WB_MC", "a multichannel AMR", "amr"),
    (0, b"#!EVS", "an EVS", "evs"),
    (8, b"QLCM", "a QCP", "qcp"),
    (8, b"8SVX", "an 8SVX (Amiga)", "8svx"),
    (8, b"16SV", "a 16SV (Amiga)", "16sv"),
    (0, b"\x06\x0e\x2b\x34", "an MXF", "mxf"),
    (0, b"MThd", "a MIDI", "mid"),
    (0, b"IMPM", "an Impulse Tracker", "it"),
    (0, b"Extended Module: ", "an XM tracker", "xm"),
    (44, b"SCRM", "an S3M tracker", "s3m"),
    (1080, b"M.K.", "a MOD tracker", "mod"),
    (0, b"%PDF", "a PDF", ""),
    (0, b"\x89PNG", "a PNG picture", ""),
    (0, b"\xff\xd8\xff", "a JPEG picture", ""),
    (0, b"GIF8", "a GIF picture", ""),
    (8, b"WEBP", "a WebP picture", ""),
    *((4, brand, "a HEIF or AVIF picture", "") for brand in _PICTURES),
    (0, b"PK\x03\x04", "a ZIP (also DOCX, XLSX or APK)", ""),
    (0, b"Rar!", "a RAR", ""),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip", ""),
    (0, b"\x1f\x8b", "a gzip", ""),
    (0, b"BZh", "a bzip2", ""),
    (0, b"\xfd7zXZ", "an XZ", ""),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard", ""),
    (257, b"ustar", "a TAR", ""),
    (0, b"\xd0\xcf\x11\xe0", "a Microsoft Office", ""),
    (0, b"{\\rtf", "an RTF", ""),
    (0, b"II*\0", "a TIFF picture", ""),
    (0, b"MM\0*", "a TIFF picture", ""),
    (0, b"SQLite format 3", "an SQLite", ""),
    (0, b"\x7fELF", "an ELF program", ""),
    (4, b"\x57\x90\x75\x36", "an Audible (AA)", ""),
    (1, b"dss", "a DSS (dictation)", "dss"),
    (1, b"ds2", "a DS2 (dictation)", ""),
    (0, b"ea3\x03", "an ATRAC (OMA)", "oma"),
    (0, b"EA3\x01", "an ATRAC (OMA)", "oma"),
    (4, b"\xf8\x72\x6f", "a Dolby TrueHD or MLP", "thd"),
    (0, b"\x64\xa3", "an IRCAM", "sf"),
    (8, b"RMID", "a MIDI", "mid"),
    (8, b"CDDA", "a CD audio shortcut (CDA)", ""),
    (0, b"FWS", "a Flash", ""),
    (0, b"CWS", "a Flash", ""),
)


def _foreign(head: bytes) -> tuple[str, str] | None:
    """What a file is that is not accepted, and its usual extension, if FFmpeg can convert it."""
    for at, magic, name, extension in _FOREIGN:
        if head.startswith(magic, at):
            return name, extension
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    others = (
        (_repeats(head, 0, 188), ("an MPEG transport stream (TS)", "ts")),
        (_repeats(head, 4, 192), ("an MPEG transport stream (M2TS)", "m2ts")),
        (_is_latm(head), ("an AAC (LATM)", "latm")),
        (b"<html" in text or text.startswith((b"<!doctype html", b"<head", b"<body", b"<script")), ("an HTML", "")),
        (text.startswith((b"<?xml", b"<error", b"<svg")), ("an XML", "")),
        (re.match(rb"[\[{]\s*[\"{\[}\]]", text) is not None, ("a JSON", "")),
        (text.startswith((b"#extm3u", b"[playlist]", b"ffconcat", b"<asx", b"<smil")), ("a playlist", "")),
    )
    return next((found for matches, found in others if matches), None)


def _repeats(head: bytes, at: int, distance: int) -> bool:
    """Whether there are sync bytes of a transport stream."""
    return len(head) > at + 2 * distance and all(byte == 0x47 for byte in head[at::distance][:5])


def _is_latm(head: bytes) -> bool:
    for _ in range(_FRAMES):
        if len(head) < 3 or head[0] != 0x56 or head[1] & 0xE0 != 0xE0:
            return False
        head = head[3 + ((head[1] & 0x1F) << 8 | head[2]) :]
    return True


def _refusal(name: str, extension: str) -> str:
    advice = f" Convert it: ffmpeg -i recording.{extension} recording.flac (" if extension else " ("
    return f"This is {name} file, not a recording of a known kind.{advice}The engine can render {SUPPORTED}.)"


# -- tags and frames --------------------------------------------------------------------------------------------------


def _behind_tags(file: IO[bytes]) -> int:
    """The offset behind all ID3v2 tags at the beginning; their length is written in seven bits a byte."""
    at = 0
    for _ in range(_MOST_TAGS):
        head = _read(file, at, 10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        a, b, c, d = (byte & 0x7F for byte in head[6:])
        footer = 10 if head[5] & 0x10 else 0
        at += 10 + (a << 21 | b << 14 | c << 7 | d) + footer
    return at


def _behind_unsafe_id3(file: IO[bytes]) -> int:
    """The offset behind an ID3v2 tag whose length was written in eight bits a byte, as some programs do by mistake."""
    head = _read(file, 0, 10)
    return 10 + int.from_bytes(head[6:], "big") if head[:3] == b"ID3" and len(head) == 10 else 0


def _behind_zeros(file: IO[bytes], at: int) -> int:
    """The offset of the first byte that is not zero: downloads that were resumed may begin with many."""
    file.seek(at)
    while block := file.read(_BLOCK):
        rest = block.lstrip(b"\0")
        if rest:
            return at + len(block) - len(rest)
        at += len(block)
    return at


_SIGNATURES = re.compile(
    rb"(?:RIFF|RF64|BW64|RIFX)....WAVE|FORM....AIF[FC]|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02|\x1aE\xdf\xa3.{1,12}\x42\x86"
    rb"|\x00\x00\x00.ftyp|caff\x00\x01|\.snd\x00\x00|#!AMR(?:-WB)?\n",
    re.DOTALL,
)


def _first_signature(data: bytes, start: int) -> Found | None:
    """A signature behind what a server or a program put before the file: a head of HTTP, say."""
    match = _SIGNATURES.search(data)
    kind = _signature(match[0][:16]) if match else None
    return Found(kind, start + match.start()) if match and kind else None


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text)


def _first_frame(data: bytes, start: int) -> Found | None:
    """The first of three frames of MP3 or AAC that follow each other."""
    for match in re.finditer(rb"\xff[\xe0-\xff]", data):
        at = match.start()
        if _follow(data, at, _adts_length):
            return Found("aac", start + at)
        if _follow(data, at, _mpeg_length):
            return Found("mp3", start + at)
    return None


def _follow(data: bytes, at: int, length_of: Callable[[bytes], int]) -> bool:
    # A short recording may end sooner. Elsewhere than at the beginning, one header alone may be chance.
    fewest = 1 if at == 0 else 2
    first = data[at : at + 4]
    for count in range(_FRAMES):
        if at >= len(data) and len(data) < _SCANNED:
            return count >= fewest
        head = data[at : at + 7]
        length = length_of(head)
        # The first of these bytes, and what follows of version, layer and sample rate, are the same in all frames.
        if not length or head[1] & 0xFE != first[1] & 0xFE:
            return False
        at += length
    return True


def _adts_length(head: bytes) -> int:
    """Bytes of an AAC frame, 0 if it is none: twelve bits of sync, layer 0, a sample rate that exists."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 0xF > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


_KBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = (44_100, 48_000, 32_000)


def _mpeg_length(head: bytes) -> int:
    """Bytes of an MPEG audio frame (MP1, MP2, MP3), 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbits, hertz, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or kbits in (0, 15) or hertz == 3:
        return 0
    rate = _HERTZ[hertz] // {3: 1, 2: 2, 0: 4}[version]
    bits = _KBITS[version == 3, layer][kbits - 1] * 1000
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


# -- what a file says of its length -----------------------------------------------------------------------------------


def corrections(file: IO[bytes], found: Found) -> dict[int, bytes]:
    """What FFmpeg should read at some offsets instead of sizes that a program did not know when it wrote them.

    Raises:
        AudioError: The file is cut off, or has thousands of chunks before the sound.
    """
    correct = _CORRECTIONS.get(found.kind)
    return correct(file, found.start) if correct else {}


def _is_known(announced: int, there: int) -> bool:
    """Whether a file says how many bytes of sound it holds, rather than 0 or a huge number for want of knowledge.

    Raises:
        AudioError: It holds less than it says.
    """
    if not 0 < announced < MOST_BYTES:
        return False
    if there < 0.9 * announced:
        raise AudioError(f"The recording is cut off: it announces {announced} bytes of sound and holds {there}.")
    return True


def _end(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def _wav_corrections(file: IO[bytes], start: int) -> dict[int, bytes]:
    """FFmpeg takes a WAV file for as long as what is there, but believes the 64 bits of RF64 and BW64."""
    end, is_long, long_size = _end(file), _read(file, start, 4) in (b"RF64", b"BW64"), 0
    for name, size, at in _chunks(file, start):
        if name == b"ds64":
            # The sizes of RF64 and BW64: of the whole, and of the sound.
            long_size = int.from_bytes(_read(file, at + 8, 8), "little")
        if name == b"data":
            _is_known(long_size if is_long and size == 0xFFFF_FFFF else size, end - at)
            # As a file of 32 bits.
            return {start: b"RIFF"} if is_long and not 0 < long_size < MOST_BYTES else {}
    return {}


def _aiff_corrections(file: IO[bytes], start: int) -> dict[int, bytes]:
    """FFmpeg wants a size of the whole and of the sound, and refuses numbers of samples with the highest bit set."""
    end, correct = _end(file), {}
    if not 0 < int.from_bytes(_read(file, start + 4, 4), "big") < MOST_BYTES:
        correct[start + 4] = min(end - start - 8, MOST_BYTES).to_bytes(4, "big")
    for name, size, at in _chunks(file, start):
        if name == b"COMM" and _read(file, at + 2, 1) >= b"\x80":
            correct[at + 2] = b"\x7f\xff\xff\xff"
        # Eight bytes stand before the sound.
        if name == b"SSND" and not _is_known(size - 8, end - at - 8):
            correct[at - 4] = min(end - at, MOST_BYTES).to_bytes(4, "big")
            break
    return correct


def _w64_corrections(file: IO[bytes], start: int) -> dict[int, bytes]:
    end, correct = _end(file), {}
    head = _read(file, start, _SCANNED)
    if not 0 < int.from_bytes(head[16:24], "little") < MOST_BYTES:
        correct[start + 16] = (end - start).to_bytes(8, "little")
    at = head.find(b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a") + 16
    # The size counts the name and itself: 24 bytes.
    if at >= 16 and not _is_known(int.from_bytes(head[at : at + 8], "little") - 24, end - start - at - 8):
        correct[start + at] = (end - start - at + 16).to_bytes(8, "little")
    return correct


def _au_corrections(file: IO[bytes], start: int) -> dict[int, bytes]:
    offset, size = struct.unpack(">II", _read(file, start + 4, 8).ljust(8, b"\0"))
    return {} if _is_known(size, _end(file) - start - offset) else {start + 8: b"\xff" * 4}


def _caf_corrections(file: IO[bytes], start: int) -> dict[int, bytes]:
    end, at = _end(file), start + 8
    for _ in range(_MOST_CHUNKS):
        name, size = struct.unpack(">4sq", _read(file, at, 12).ljust(12, b"\0"))
        if name == b"data":
            # Four bytes stand before the sound; -1 says that it goes on to the end.
            return {} if _is_known(size - 4, end - at - 16) else {at + 4: b"\xff" * 8}
        at += 12 + size
        if size < 0 or at >= end:
            break
    return {}


_CORRECTIONS: dict[str, Callable[[IO[bytes], int], dict[int, bytes]]] = {
    "wav": _wav_corrections,
    "aiff": _aiff_corrections,
    "w64": _w64_corrections,
    "au": _au_corrections,
    "caf": _caf_corrections,
}


def _chunks(file: IO[bytes], start: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and offset of the chunks of a WAV or AIFF file."""
    order = ">" if _read(file, start, 4) in (b"RIFX", b"FORM") else "<"
    at = start + 12
    for _ in range(_MOST_CHUNKS):
        head = _read(file, at, 8)
        if len(head) < 8:
            return
        name, size = struct.unpack(f"{order}4sI", head)
        yield name, size, at + 8
        at += 8 + size + size % 2
    raise AudioError(f"The recording is damaged: there are more than {_MOST_CHUNKS} chunks before the sound.")


def has_length(file: IO[bytes], kind: str, start: int) -> bool:
    """Whether FFmpeg reads the duration of this file from it, rather than to guess it from the bit rate."""
    if kind != "mp3":
        return kind not in ("aac", "amr")
    frame = _read(file, start, 192)
    return b"Xing" in frame or b"Info" in frame or b"VBRI" in frame


def is_fragmented(file: IO[bytes], kind: str, start: int) -> bool:
    """Whether an MP4 was written in fragments, as streams are: then the durations in its head say little."""
    at = start
    for _ in range(_MOST_CHUNKS if kind == "mp4" else 0):
        size, name = struct.unpack(">I4s", _read(file, at, 8).ljust(8, b"\0"))
        if name == b"moof":
            return True
        if size == 1:
            size = int.from_bytes(_read(file, at + 8, 8), "big")
        if size < 8:
            break
        at += size
    return False


def is_protected(file: IO[bytes], kind: str) -> bool:
    """Whether an MP4 has an encrypted track (DRM of iTunes, Audible or streaming services)."""
    if kind != "mp4":
        return False
    return any(True for _ in _matches(file, rb"sinf\x00\x00\x00.frma|ftypaax[ c]"))


_LINKS = {
    "ogg": rb"OggS\x00[\x02\x06]",  # a page that begins a stream
    "flac": rb"fLaC[\x00\x80]\x00\x00\x22",
    "matroska": rb"\x1aE\xdf\xa3.{1,8}\x42\x86\x81\x01",
}


def links(file: IO[bytes], found: Found) -> list[int]:
    """Offsets of the recordings that a file is joined of, for kinds whose demuxers do not read beyond the first."""
    starts = [found.start]
    if found.kind in _LINKS:
        following = -1
        for at in _matches(file, _LINKS[found.kind]):
            # The streams of an Ogg file begin with a page each, one behind the other.
            if at > found.start and at != following:
                starts.append(at)
            if found.kind == "ogg":
                following = at + _page_length(_read(file, at, 27 + 255))
    return starts


def _page_length(head: bytes) -> int:
    count = head[26] if len(head) > 26 else 0
    return 27 + count + sum(head[27 : 27 + count])


def _matches(file: IO[bytes], pattern: bytes) -> Iterator[int]:
    """Offsets at which a short pattern matches."""
    overlap, base, before = 15, 0, b""
    last = -1
    while True:
        file.seek(base)
        block = file.read(_BLOCK)
        if not block:
            return
        data = before + block
        for match in re.finditer(pattern, data, re.DOTALL):
            at = base - len(before) + match.start()
            if at > last:
                yield at
                last = at
        base += len(block)
        before = data[-overlap:]
