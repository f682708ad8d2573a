"""Malicious recordings: none of them opens a file or a socket, exceeds the limits or crashes the server.

They are decoded in a process that the kernel kills at the first attempt to open anything, by any library.
"""

from __future__ import annotations

import io
import json
import platform
import random
import struct
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import anyio
import av
import httpx
import numpy as np
import pytest

import a2v.engine
from a2v.engine import LocalEngine

CLIPS = sorted((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"))
SECRET = "/etc/hostname"
KINDS = [
    ("mp3", "libmp3lame"),
    ("ogg", "libopus"),
    ("flac", "flac"),
    ("mp4", "aac"),
    ("adts", "aac"),
    ("webm", "libopus"),
    ("wav", "pcm_s16le"),
    ("wav", "pcm_f32le"),
    ("aiff", "pcm_s16be"),
    ("caf", "pcm_s16le"),
    ("au", "pcm_s16be"),
    ("w64", "pcm_s16le"),
]
MUTATIONS = 20
"""Mutations per format. The seeds are fixed, so failures are reproducible; raise the number to search further."""

# -- the corpus -------------------------------------------------------------------------------------------------------

SCRIPTS = {
    "concat": "ffconcat version 1.0\nfile {secret}\nfile http://127.0.0.1:9/a\n",
    "concat-near": "ffconcat version 1.0\nfile hostname\n",
    "concat-unsafe": "ffconcat version 1.0\nfile 'subfile,,start,0,end,9,,:{secret}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "hls-concat": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:9,\nconcat:http://127.0.0.1:9/?|{secret}\n#EXT-X-ENDLIST\n",
    "hls-key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="file://{secret}"\n#EXTINF:9,\na.ts\n#EXT-X-ENDLIST\n',
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    "<Representation><BaseURL>file://{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "entity": '<?xml version="1.0"?><!DOCTYPE MPD [<!ENTITY x SYSTEM "file://{secret}">]><MPD><Period>&x;</Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 45678 RTP/AVP 0\na=rtpmap:0 PCMU/8000\n",
    "pls": "[playlist]\nFile1={secret}\nNumberOfEntries=1\n",
    "asx": '<asx version="3.0"><entry><ref href="file://{secret}"/></entry></asx>',
    "imf": "<CompositionPlaylist><Id>urn:uuid:1</Id><ContentTitle>file://{secret}</ContentTitle></CompositionPlaylist>",
    "rtsp": "rtsptextRTSP://127.0.0.1:9/a\n",
    "ffmetadata": ";FFMETADATA1\ntitle={secret}\n",
    "url": "http://127.0.0.1:9/a.mp3\n",
    "path": "{secret}\n",
}
HEADS = {
    "bare": b"",
    "bom": b"\xef\xbb\xbf",
    "id3": b"ID3\x04\x00\x00\x00\x00\x00\x00",
    "wav": b"RIFF\xff\xff\xff\x7fWAVE",
    "ogg": b"OggS",
    "flac": b"fLaC",
    "mp4": b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00isom",
    "webm": b"\x1aE\xdf\xa3",
    "adts": b"\xff\xf1P\x80",
    "mp3": b"\xff\xfb\x90\x64",
}


def scripts() -> dict[str, bytes]:
    return {
        f"{name} behind {head}": start + script.format(secret=SECRET).encode() * 40
        for name, script in SCRIPTS.items()
        for head, start in HEADS.items()
    }


def encode(samples: np.ndarray, container_format: str, codec: str, rate: int = 48_000) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None, :].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate, stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return out.getvalue()


def speech() -> np.ndarray:
    """Return the first second of a recording."""
    with av.open(str(CLIPS[0])) as container:
        resampler = av.AudioResampler("flt", "mono", 48_000)
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)[:48_000]


@cache
def real() -> dict[str, bytes]:
    return {f"{container} of {codec}": encode(speech(), container, codec) for container, codec in KINDS}


def truncated(files: dict[str, bytes]) -> dict[str, bytes]:
    cuts = {"a byte": 1, "a head": 12, "a header": 60}
    ends = {f"{name}, {cut} of it": data[:length] for name, data in files.items() for cut, length in cuts.items()}
    return ends | {
        f"{name}, {part} %": data[: len(data) * part // 100] for name, data in files.items() for part in (10, 50, 99)
    }


def mutated(files: dict[str, bytes]) -> dict[str, bytes]:
    found = {}
    for name, data in files.items():
        for seed in range(MUTATIONS):
            found[f"{name}, mutation {seed}"] = mutate(data, random.Random(f"{name} {seed}"))
    return found


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    # Half of the mutations are in the headers, where they do the most harm.
    area = len(changed) if chance.random() < 0.5 else min(400, len(changed))
    for _ in range(chance.choice((1, 3, 10, 60))):
        at = chance.randrange(area)
        what = chance.randrange(4)
        if what == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            changed[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00"))
        elif what == 2:
            changed[at:at] = changed[at : at + chance.randrange(1, 60)]
        else:
            del changed[at : at + chance.randrange(1, 60)]
        area = min(area, len(changed))
    return bytes(changed)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content


def with_reference(data: bytes, reference: bytes) -> bytes:
    """Return an MP4 that refers to another file for its samples."""
    at = data.index(b"dref") - 4
    (size,) = struct.unpack_from(">I", data, at)
    changed = box(b"dref", b"\0\0\0\0\0\0\0\1" + reference)
    grown = bytearray(data[:at] + changed + data[at + size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        where = grown.index(parent) - 4
        (before,) = struct.unpack_from(">I", grown, where)
        struct.pack_into(">I", grown, where, before + len(changed) - size)
    return bytes(grown)


def pointing_elsewhere(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return valid files that refer to another file, as their format allows."""
    mp4, mp3, flac = files["mp4 of aac"], files["mp3 of libmp3lame"], files["flac of flac"]
    link = b"\x00-->\x00\x03\x00http://127.0.0.1:9/cover.png"
    picture = (
        b"ID3\x03\x00\x00\x00\x00\x00" + bytes([len(link) + 10]) + b"APIC" + struct.pack(">IH", len(link), 0) + link
    )
    mime, url = b"-->", b"file:///etc/hostname"
    cover = struct.pack(">II", 3, len(mime)) + mime + bytes(4 * 5) + struct.pack(">I", len(url)) + url
    block = struct.pack(">I", 0x06 << 24 | len(cover)) + cover
    path = SECRET.encode()
    alias = struct.pack(">2x4xHH", 200, 2) + bytes(130) + struct.pack(">HH", 2, len(path)) + path + b"\xff\xff\0\0"
    return {
        "mp4 with url": with_reference(mp4, box(b"url ", b"\0\0\0\0http://127.0.0.1:9/a.mp4\0")),
        "mp4 with file url": with_reference(mp4, box(b"url ", b"\0\0\0\0file:///etc/hostname\0")),
        "mp4 with alias": with_reference(mp4, box(b"alis", b"\0\0\0\0" + alias)),
        "mp4 with urn": with_reference(mp4, box(b"urn ", b"\0\0\0\0urn:x\0http://127.0.0.1:9/\0")),
        "mp3 with linked cover": picture + mp3,
        "flac with linked cover": flac[:42] + block + flac[42:],
    }


@cache
def bombs() -> dict[str, bytes]:
    silence = encode(np.zeros(48_000 * 660), "flac", "flac")
    wav = encode(np.zeros(4800), "wav", "pcm_s16le")
    huge = bytearray(wav)
    huge[40:44] = huge[4:8] = b"\xff\xff\xff\xff"
    slow = bytearray(wav)
    slow[24:28] = struct.pack("<I", 1)
    wide = bytearray(wav)
    wide[22:24] = struct.pack("<H", 65535)
    frame = b"\xff\xfb\x14\x64" + bytes(100)
    return {
        "eleven minutes in a flac": silence,
        "a wav of four gigabytes": bytes(huge),
        "a wav of one sample a second": bytes(slow),
        "a wav of 65535 channels": bytes(wide),
        "mp3 frames without end": frame * 40_000,
        "boxes in boxes": b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00isom"
        + b"\x7f\xff\xff\xffmoov\x7f\xff\xff\xfftrak" * 20_000,
        "pages without end": b"OggS\x00\x02" + bytes(20) + b"\x01\x00" + b"OggS\x00\x00" + bytes(20) * 20_000,
        "an id3 tag of 256 megabytes": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(1000),
        "elements in elements": b"\x1aE\xdf\xa3\x80" + b"\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff" * 20_000,
    }


# -- decoded where nothing can be opened ------------------------------------------------------------------------------

SANDBOX = """
import ctypes, io, json, os, platform, struct, sys, zipfile
import av
from a2v.engine import audio, worker
from a2v.engine.errors import AudioError
av.logging.set_level(None)

# open socket connect bind execve creat openat execveat openat2: by the numbers of the system calls
CALLS = {"x86_64": (2, 41, 42, 49, 59, 85, 257, 322, 437), "aarch64": (56, 198, 200, 203, 221, 281, 437)}

def refuse_to_open():
    "From now on the kernel kills this process (SIGSYS) when anything is opened, connected or run."
    numbers = CALLS[platform.machine()]
    program = [(0x20, 0, 0, 0)]  # the number of the call
    program += [(0x15, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]  # if equal, jump to the end
    program += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x80000000)]  # allow; kill
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()

def decode(data, naive):
    if naive:  # as most programs decode files
        with av.open(io.BytesIO(data)) as container:
            return sum(frame.samples for frame in container.decode(audio=0))
    samples = len(audio.decode(data, max_seconds=600))
    for _ in audio.Recording(data).soundtrack():
        pass
    return samples

naive = sys.argv[2:] == ["naive"]
with zipfile.ZipFile(sys.argv[1]) as archive:
    files = {name: archive.read(name) for name in archive.namelist()}
good = [name for name in files if name.startswith("good ")]
for name in good:
    decode(files[name], naive)  # loads everything that is loaded on first use
worker._limit_resources(2 << 30, 3600)
refuse_to_open()
for name, data in files.items():
    print(json.dumps(name), flush=True)
    try:
        verdict = decode(data, naive)
    except AudioError as error:
        verdict = str(error)
    except Exception as error:
        verdict = None if not naive else repr(error)
    print(json.dumps(verdict), flush=True)
"""


def decode_all(files: dict[str, bytes], folder: Path, *options: str) -> tuple[int, dict[str, object]]:
    """Return the exit status, and the outcome per file: a number of samples, an error message, or ``None`` for a crash."""

    good = {f"good {name}": data for name, data in real().items()}
    with zipfile.ZipFile(folder / "corpus.zip", "w") as archive:
        for name, data in (good | files).items():
            archive.writestr(name, data)
    command = [sys.executable, "-c", SANDBOX, str(folder / "corpus.zip"), *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert lines, ran.stderr
    return ran.returncode, dict(zip(lines[::2], [*lines[1::2], "killed"], strict=False))


def thinned(files: dict[str, bytes], every: int) -> dict[str, bytes]:
    """Return one file in ``every``, for the default set."""
    return {name: files[name] for name in list(files)[::every]}


needs_seccomp = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux's seccomp"
)
KILLED = -31  # SIGSYS


@needs_seccomp
@pytest.mark.parametrize("name", ["concat-near behind bare", "sdp behind bare"])
def test_the_sandbox_detects_what_a_naive_decoder_opens(name, tmp_path):
    """Without this, the tests below could not fail."""
    status, verdicts = decode_all({name: scripts()[name]}, tmp_path, "naive")
    assert (status, verdicts[name]) == (KILLED, "killed")


@needs_seccomp
def test_nothing_is_opened_by_what_names_other_files(tmp_path):
    corpus = scripts()
    assert len(corpus) == 160
    status, verdicts = decode_all(corpus, tmp_path)
    assert (status, list(verdicts)[-1]) == (0, list(corpus)[-1])
    assert {
        name: verdict for name, verdict in verdicts.items() if name in corpus and not isinstance(verdict, str)
    } == {}


@needs_seccomp
def test_nothing_is_opened_by_valid_files_that_refer_to_others(tmp_path):
    corpus = pointing_elsewhere(real())
    status, verdicts = decode_all(corpus, tmp_path)
    assert status == 0, verdicts
    assert {name: verdict for name, verdict in verdicts.items() if verdict is None} == {}
    assert verdicts["mp3 with linked cover"] > 15_000


@needs_seccomp
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.extended)])
def test_decompression_bombs_are_refused_or_bounded(tmp_path, every):
    corpus = thinned(bombs(), every)
    status, verdicts = decode_all(corpus, tmp_path)
    assert status == 0, verdicts
    assert "longer than 10 minutes" in verdicts["eleven minutes in a flac"]
    # A file that only claims to be long may be decoded.
    decoded = {name for name in corpus if not isinstance(verdicts[name], str)}
    assert decoded <= {"a wav of four gigabytes"}


@needs_seccomp
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.extended)])
def test_broken_files_are_refused_or_decoded(tmp_path, every):
    """Truncated and mutated files give an ``AudioError`` or the rest of the sound, never a crash or another exception."""
    files = real()
    corpus = thinned(truncated(files) | mutated(files), every)
    assert len(corpus) > 200 / every
    status, verdicts = decode_all(corpus, tmp_path)
    assert (status, list(verdicts)[-1]) == (0, list(corpus)[-1])
    assert {name: verdict for name, verdict in verdicts.items() if verdict is None} == {}
    # The corpus is neither all valid nor all unreadable.
    decoded = sum(isinstance(verdicts[name], int) for name in corpus)
    assert 0.1 < decoded / len(corpus) < 0.9


# -- the server -----------------------------------------------------------------------------------------------------


def test_the_server_survives(tmp_path, poll_until):
    hostile = {
        "script.mp3": scripts()["hls behind id3"],
        "reference.mp4": pointing_elsewhere(real())["mp4 with url"],
        "bomb.flac": bombs()["eleven minutes in a flac"],
        "good.flac": CLIPS[0].read_bytes(),
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)

    async def main() -> dict[str, dict[str, str]]:
        async with (
            LocalEngine(allow_files=tmp_path, max_audio_seconds=600) as engine,
            httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": engine.token}) as client,
        ):
            ids = {}
            for name in hostile:
                job = {"model_id": "eva_a0008", "audio_url": (tmp_path / name).as_uri()}
                ids[name] = (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]
            return {name: await poll_until(client, one, "finished", "error") for name, one in ids.items()}

    videos = anyio.run(main)
    assert videos["good.flac"]["status"] == "finished"
    assert videos["script.mp3"]["status"] == videos["bomb.flac"]["status"] == "error"
    assert "longer than 10 minutes" in videos["bomb.flac"]["message"]
