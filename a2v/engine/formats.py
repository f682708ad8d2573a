"""Detects the container format of a recording by its content.

FFmpeg's own detection is not used, because it also recognises playlists, which make FFmpeg open other files. File names and media types
are ignored, because they are often wrong. ``detect_format`` looks, in this order, for

1. a signature at the beginning, after ID3 tags, or after zeros (resumed downloads may begin with many);
2. the signature of a known but unsupported format, so that the error can name it and say how to convert it;
3. MP3 or AAC (ADTS) frames within the first 256 KiB. These formats have no signature, only frame headers, and recordings of
   radio streams begin anywhere within a frame. So three consecutive frames must have the lengths that their headers state;
4. a signature within the first 256 KiB, for example after a form boundary or the header of an HTTP response.

All other files are rejected.
"""

from __future__ import annotations

import codecs
import re
from typing import IO, TYPE_CHECKING, NamedTuple

from a2v.engine.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Callable

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
"""The supported formats: FFmpeg's names, and the names for error messages."""

SUPPORTED = (
    "WAV (also RF64, BW64 and W64), MP3, AAC, M4A/MP4/MOV/3GP, Ogg (Opus, Vorbis, FLAC or Speex), FLAC, WebM/MKV, "
    "AIFF/AIFC, CAF, AU and AMR"
)

_SCANNED_BYTES = 256 << 10
_MAX_TAGS = 100
_BLOCK_BYTES = 1 << 20
_CONSECUTIVE_FRAMES = 3


class FileFormat(NamedTuple):
    """A container format by FFmpeg's name, and the offset of its first byte, after tags and garbage."""

    name: str
    start: int


def detect_format(file: IO[bytes]) -> FileFormat:
    """Detect the format of a recording.

    Raises:
        AudioError: The file is empty or its format is not supported; the message names it and says how to convert it.
    """
    start = _end_of_id3v2(file)
    starts = dict.fromkeys((start, _skip_zeros(file, start), _skip_zeros(file, 0), 0, _end_of_malformed_id3v2(file)))
    for offset in starts:
        name = _match_signature(read_at(file, offset, 16))
        if name:
            return FileFormat(name, offset)
    if not read_at(file, 0, 1):
        raise AudioError("The recording is empty: the file has no bytes.")
    unsupported = _match_unsupported(read_at(file, start, 4096))
    if unsupported is None and start:
        unsupported = _match_unsupported(read_at(file, 0, 4096))
    if unsupported:
        raise AudioError(_unsupported_message(*unsupported))
    for offset in starts:
        found = _find_frames(read_at(file, offset, _SCANNED_BYTES), offset)
        if found:
            return found
    for offset in starts:
        # The size of an MP4's first box begins with zeros, which were skipped.
        begin = max(0, offset - 3)
        found = _find_signature(read_at(file, begin, _SCANNED_BYTES), begin)
        if found:
            return found
    what = "a text file, " if _is_text(read_at(file, 0, 4096)) else ""
    raise AudioError(f"This is {what}not a supported recording. The engine can render {SUPPORTED}.")


def read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    """Read up to ``size`` bytes at an offset."""
    file.seek(offset)
    return file.read(size)


# -- signatures -------------------------------------------------------------------------------------------------------

_SIGNATURES = (
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
# The first box of an MP4. QuickTime files from before 2001 have no ``ftyp``, and some programs put other boxes before it.
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_PICTURES = (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1", b"ftypavif", b"ftypavis")


def _match_signature(head: bytes) -> str | None:
    if head[:4] in _RIFF and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in _MP4_BOXES and not head.startswith(_PICTURES, 4):
        return "mp4"
    return next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)


# Offset, signature, name, and the usual extension; no extension if FFmpeg cannot convert the format.
_UNSUPPORTED: tuple[tuple[int, bytes, str, str], ...] = (
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


def _match_unsupported(head: bytes) -> tuple[str, str] | None:
    """Return the name of an unsupported format, and its usual extension if FFmpeg can convert it."""
    for offset, signature, name, extension in _UNSUPPORTED:
        if head.startswith(signature, offset):
            return name, extension
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    others = (
        (_has_sync_bytes(head, 0, 188), ("an MPEG transport stream (TS)", "ts")),
        (_has_sync_bytes(head, 4, 192), ("an MPEG transport stream (M2TS)", "m2ts")),
        (_is_latm(head), ("an AAC (LATM)", "latm")),
        (b"<html" in text or text.startswith((b"<!doctype html", b"<head", b"<body", b"<script")), ("an HTML", "")),
        (text.startswith((b"<?xml", b"<error", b"<svg")), ("an XML", "")),
        (re.match(rb"[\[{]\s*[\"{\[}\]]", text) is not None, ("a JSON", "")),
        (text.startswith((b"#extm3u", b"[playlist]", b"ffconcat", b"<asx", b"<smil")), ("a playlist", "")),
    )
    return next((found for matches, found in others if matches), None)


def _has_sync_bytes(head: bytes, offset: int, distance: int) -> bool:
    """Whether the first packets of a transport stream begin at an offset, with the distance given."""
    return len(head) > offset + 2 * distance and all(byte == 0x47 for byte in head[offset::distance][:5])


def _is_latm(head: bytes) -> bool:
    for _ in range(_CONSECUTIVE_FRAMES):
        if len(head) < 3 or head[0] != 0x56 or head[1] & 0xE0 != 0xE0:
            return False
        head = head[3 + ((head[1] & 0x1F) << 8 | head[2]) :]
    return True


def _unsupported_message(name: str, extension: str) -> str:
    advice = f" Convert it: ffmpeg -i recording.{extension} recording.flac (" if extension else " ("
    return f"This is {name} file, not a supported recording.{advice}The engine can render {SUPPORTED}.)"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text)


# -- tags and garbage -------------------------------------------------------------------------------------------------


def _end_of_id3v2(file: IO[bytes]) -> int:
    """Return the offset after all ID3v2 tags at the beginning; their size has seven bits per byte."""
    offset = 0
    for _ in range(_MAX_TAGS):
        head = read_at(file, offset, 10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        a, b, c, d = (byte & 0x7F for byte in head[6:])
        footer = 10 if head[5] & 0x10 else 0
        offset += 10 + (a << 21 | b << 14 | c << 7 | d) + footer
    return offset


def _end_of_malformed_id3v2(file: IO[bytes]) -> int:
    """Return the offset after an ID3v2 tag whose size has eight bits per byte, a mistake of some programs."""
    head = read_at(file, 0, 10)
    return 10 + int.from_bytes(head[6:], "big") if head[:3] == b"ID3" and len(head) == 10 else 0


def _skip_zeros(file: IO[bytes], offset: int) -> int:
    """Return the offset of the first byte that is not zero, from an offset on."""
    file.seek(offset)
    while block := file.read(_BLOCK_BYTES):
        rest = block.lstrip(b"\0")
        if rest:
            return offset + len(block) - len(rest)
        offset += len(block)
    return offset


# Long enough that they hardly occur in garbage by chance.
_DISTINCT_SIGNATURES = re.compile(
    rb"(?:RIFF|RF64|BW64|RIFX)....WAVE|FORM....AIF[FC]|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02|\x1aE\xdf\xa3.{1,12}\x42\x86"
    rb"|\x00\x00\x00.ftyp|caff\x00\x01|\.snd\x00\x00|#!AMR(?:-WB)?\n",
    re.DOTALL,
)


def _find_signature(data: bytes, start: int) -> FileFormat | None:
    match = _DISTINCT_SIGNATURES.search(data)
    name = _match_signature(match[0][:16]) if match else None
    return FileFormat(name, start + match.start()) if match and name else None


# -- MP3 and AAC frames -----------------------------------------------------------------------------------------------


def _find_frames(data: bytes, start: int) -> FileFormat | None:
    for match in re.finditer(rb"\xff[\xe0-\xff]", data):
        offset = match.start()
        if _are_frames(data, offset, _adts_length):
            return FileFormat("aac", start + offset)
        if _are_frames(data, offset, _mpeg_length):
            return FileFormat("mp3", start + offset)
    return None


def _are_frames(data: bytes, offset: int, length_of: Callable[[bytes], int]) -> bool:
    """Whether consecutive frames begin at an offset; ``length_of`` returns the length of a frame from its header, or 0."""
    # A short recording may have fewer frames. A single header counts only at the beginning: elsewhere it may be chance.
    fewest = 1 if offset == 0 else 2
    first = data[offset : offset + 4]
    for count in range(_CONSECUTIVE_FRAMES):
        if offset >= len(data) and len(data) < _SCANNED_BYTES:
            return count >= fewest
        head = data[offset : offset + 7]
        length = length_of(head)
        # Sync bits, version and layer are the same in all frames of a recording.
        if not length or head[1] & 0xFE != first[1] & 0xFE:
            return False
        offset += length
    return True


def _adts_length(head: bytes) -> int:
    """Return the size of an AAC frame in bytes; 0 unless it has the sync bits, layer 0 and a valid sample rate."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 0xF > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


# Bit rates in kbit/s by their index in the header, for MPEG 1 or not, and the layer.
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
    """Return the size of an MPEG audio frame (MP1, MP2, MP3) in bytes; 0 without a valid header."""
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
