"""Containers, shapes, frame rates and backgrounds: the videos are decoded again."""

from __future__ import annotations

import io
import re
import struct
import wave
from fractions import Fraction
from pathlib import Path

import anyio
import av
import httpx
import numpy as np
import pytest

from a2v.engine import LocalEngine, Settings, renderer
from a2v.engine.audio import Recording
from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.comments import add_comment
from a2v.engine.errors import RenderError
from a2v.engine.picture import load_picture
from a2v.engine.render import picture_size, render
from a2v.engine.video_options import VideoOptions, read_options
from a2v.engine.video_writer import SYNTHETIC

RATE, SECONDS = 16_000, 0.4
WORKER = renderer.WORKER
GENERATE = "/v1/a2v/video.generate"


def vowel(seconds: float = SECONDS) -> bytes:
    time = np.arange(int(RATE * seconds)) / RATE
    samples = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 9))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 6000).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def make(tmp_path):
    """Render a vowel; return the path of the video."""

    def make(container: str, *, subject: str = "eva_a0008", seconds: float = SECONDS, **options) -> Path:
        path = tmp_path / f"video.{container}"
        options.setdefault("size", 256)
        render(Recording(vowel(seconds)), subject, path, container=container, **options)
        return path

    return make


def frames_of(path: Path, decoder: str | None = None) -> list[av.VideoFrame]:
    """Decode a video; with FFmpeg's default decoder of VP9, alpha would be lost."""
    with av.open(str(path)) as container:
        if decoder is None:
            return list(container.decode(video=0))
        context = av.CodecContext.create(decoder, "r")
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [frame for packet in [*packets, None] for frame in context.decode(packet)]


def alpha_of(frame: av.VideoFrame) -> np.ndarray:
    """Return the alpha plane, from 0 to 1."""
    kind = "<u2" if frame.format.components[0].bits > 8 else "u1"
    plane = frame.planes[3]
    values = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)[:, : plane.width]
    return values / (2 ** frame.format.components[3].bits - 1)


def is_opaque(frame: av.VideoFrame) -> bool:
    """Whether nothing shows through. Decoders omit an alpha plane that would be opaque everywhere."""
    return len(frame.planes) == 3 or bool(alpha_of(frame).min() == 1)


def rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24").astype(int)


def check_cut_out(alpha: np.ndarray) -> None:
    """The corners above the person are transparent, and the face and the chest are opaque."""
    height, width = alpha.shape
    assert alpha[: height // 10].max() < 0.02
    assert alpha[height // 2, width // 2] > 0.98
    assert alpha[-2, width // 2] > 0.98
    assert alpha[height // 2, : width // 20].max() < 0.02


# -- containers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "background", "codec", "sound"),
    [
        ("webm", "transparent", "vp9", "opus"),
        ("webm", "#204060", "vp9", "opus"),
        ("mov", "transparent", "prores", "pcm_s16le"),
        pytest.param("mov", "character", "prores", "pcm_s16le", marks=pytest.mark.extended),
    ],
)
def test_a_video_with_sound(make, container, background, codec, sound) -> None:
    path = make(container, background=background)
    with av.open(str(path)) as video:
        assert video.format.name.startswith("matroska" if container == "webm" else "mov")
        picture, voice = video.streams.video[0], video.streams.audio[0]
        assert (picture.codec_context.name, voice.codec_context.name) == (codec, sound)
        assert (picture.width, picture.height, picture.average_rate) == (256, 256, 25)
        assert video.duration / 1e6 == pytest.approx(SECONDS, abs=0.05)
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in video.decode(audio=0)]).astype(float)
    spectrum = np.abs(np.fft.rfft(samples[: 48_000 // 4]))
    assert np.argmax(spectrum[20:100]) + 20 == pytest.approx(140 / 4, abs=1)  # bins of 4 Hz
    frames = frames_of(path, "libvpx-vp9" if codec == "vp9" else None)
    assert len(frames) == SECONDS * 25
    if background == "transparent":
        for frame in (frames[0], frames[-1]):
            check_cut_out(alpha_of(frame))
    elif background.startswith("#"):
        assert np.abs(rgb(frames[0])[:20, :20].mean((0, 1)) - (0x20, 0x40, 0x60)).max() < 4
    else:
        assert is_opaque(frames[0])


@pytest.mark.parametrize("container", ["webm", "mov"])
def test_colours_are_straight_not_premultiplied(make, container) -> None:
    """Premultiplied colours would be darkened twice at the soft edges of the person."""
    frame = frames_of(make(container, background="transparent"), "libvpx-vp9" if container == "webm" else None)[0]
    opaque = frames_of(make("mp4", background="#FFFFFF"))[0]
    alpha = alpha_of(frame)
    frame.colorspace = opaque.colorspace
    composed = rgb(frame).mean(-1) * alpha + 255 * (1 - alpha)
    difference = composed - rgb(opaque).mean(-1)
    soft = (alpha > 0.2) & (alpha < 0.8)
    assert soft.sum() > 50
    assert abs(difference[soft].mean()) < 6
    assert np.abs(difference[alpha == 1]).mean() < 4


def webp_frames(path: Path) -> tuple[tuple[int, int], list[tuple[int, list[int], bytes]]]:
    """Return the size of an animated WebP, and for each frame its milliseconds, its place, and a still picture with it."""
    data = path.read_bytes()
    assert data[:4] == b"RIFF"
    assert data[8:16] == b"WEBPVP8X"
    size = tuple(int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    frames, at = [], 12
    while at < len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"ANMF":
            body, offset = data[at + 24 : at + 8 + length], [2 * data[at + i] for i in (8, 11)]
            width, height, milliseconds = (int.from_bytes(data[at + i : at + i + 3], "little") for i in (14, 17, 20))
            head = struct.pack("<4sIB3x", b"VP8X", 10, 16) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
            still = b"WEBP" + (head if body[:4] == b"ALPH" else b"") + body
            frames.append((milliseconds, offset, struct.pack("<4sI", b"RIFF", len(still)) + still))
        at += 8 + length + length % 2
    return size, frames


@pytest.mark.parametrize("background", ["transparent", "character"])
def test_an_animated_webp(make, tmp_path, background) -> None:
    size, frames = webp_frames(make("webp", background=background))
    assert size == (256, 256)
    assert sum(milliseconds for milliseconds, *_ in frames) == pytest.approx(SECONDS * 1000, abs=45)
    assert len(frames) > 5
    still = tmp_path / "still.webp"
    _, (left, top), content = frames[0]
    still.write_bytes(content)
    (picture,) = frames_of(still)
    if background == "transparent":
        alpha = np.zeros((256, 256))
        alpha[top : top + picture.height, left : left + picture.width] = alpha_of(picture)
        check_cut_out(alpha)
    else:
        assert picture.format.name == "yuv420p"
        reference = rgb(frames_of(make("mp4"))[0])
        assert np.abs(rgb(picture) - reference).mean() < 4


def test_an_animated_gif(make) -> None:
    path = make("gif", fps=50)
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == 50
        assert not video.streams.audio
    frames = frames_of(path)
    assert len(frames) == pytest.approx(SECONDS * 50, abs=1)
    assert np.abs(rgb(frames[0]) - rgb(frames_of(make("mp4"))[0])).mean() < 6
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in path.read_bytes()  # it repeats for ever


@pytest.mark.parametrize("container", ["webp", "gif"])
def test_animated_pictures_are_short(make, container, tmp_path) -> None:
    with pytest.raises(RenderError, match=rf"a {container} can have at most 30 s, and this recording has 30\.5 s"):
        make(container, seconds=30.5)
    assert list(tmp_path.iterdir()) == []


def exif_description(webp: bytes) -> bytes:
    """Return the description in the Exif data of a WebP, to which its header must refer."""
    assert webp[12:16] == b"VP8X"
    assert webp[20] & 8
    assert struct.unpack_from("<I", webp, 4)[0] == len(webp) - 8
    at, chunks = 12, {}
    while at < len(webp):
        name, length = struct.unpack_from("<4sI", webp, at)
        chunks[name] = webp[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    assert list(chunks)[-1] == b"EXIF"
    exif = chunks[b"EXIF"]
    order, _, start, entries, tag, kind, length, place = struct.unpack_from("<2sHIHHHII", exif)
    assert (order, start, entries, tag, kind) == (b"II", 8, 1, 0x010E, 2)
    return exif[place : place + length]


@pytest.mark.parametrize("container", ["mp4", "webm", "mov", "gif", "webp"])
def test_every_container_says_that_the_video_is_synthetic(make, container) -> None:
    path = make(container, seconds=0.08, size=96)
    if container == "webp":
        assert exif_description(path.read_bytes()) == SYNTHETIC.encode() + b"\0"
        return
    with av.open(str(path)) as video:
        metadata = {name.lower(): value for name, value in video.metadata.items()}
        assert metadata["comment"] == SYNTHETIC
        assert len(list(video.decode(video=0))) == 2


@pytest.mark.parametrize("target", ["yuv420p", "bgra"], ids=["lossy", "lossless"])
def test_a_comment_is_added_to_a_webp_with_one_picture(tmp_path, target) -> None:
    pixels, path = halves(62, 41, alpha=target == "bgra"), tmp_path / "picture"
    for text in ("even", "odd"):
        path.write_bytes(webp(pixels, target))
        (before,) = frames_of(path)
        assert path.read_bytes()[12:16] in {b"VP8 ", b"VP8L"}
        add_comment(path, text)
        assert exif_description(path.read_bytes()) == text.encode() + b"\0"
        (after,) = frames_of(path)
        assert (rgb(after) == rgb(before)).all()
        assert load_picture(path, 62, 41).shape == (41, 62, 4)


def webp(pixels: np.ndarray, target: str) -> bytes:
    context = av.VideoCodecContext.create("libwebp", "w")
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt, context.time_base = target, Fraction(1, 25)
    context.options = {"lossless": str(int(target == "bgra"))}
    layout = "rgba" if target == "bgra" else "rgb24"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=layout).reformat(format=target)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def test_a_long_comment_is_added_to_a_gif(make) -> None:
    path = make("gif", seconds=0.08, size=96)
    frames = [frame.to_ndarray(format="rgb24") for frame in frames_of(path)]
    add_comment(path, "a" * 300)
    assert [frame.to_ndarray(format="rgb24").tobytes() for frame in frames_of(path)] == [
        one.tobytes() for one in frames
    ]
    assert b"!\xfe\xff" + b"a" * 255 + b"\x2d" + b"a" * 45 + b"\0" in path.read_bytes()


# -- shapes and rates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "width"), [(512, 910), (720, 1280), (1080, 1920)])
def test_a_landscape_is_sixteen_to_nine(size, width) -> None:
    assert picture_size(size, "landscape") == (width, size)


@pytest.mark.parametrize("subject", ["eva_a0008_front", "eva_a0008_closeup"])
def test_in_a_landscape_the_person_is_in_the_middle_and_reaches_the_lower_edge(make, subject) -> None:
    (frame, *_) = frames_of(make("mov", subject=subject, format="landscape", background="transparent", seconds=0.04))
    alpha = alpha_of(frame)
    columns = np.nonzero(alpha.max(0) > 0.5)[0]
    assert columns.min() + columns.max() == pytest.approx(alpha.shape[1], abs=12)
    assert alpha[-1].max() == 1
    assert columns.min() > alpha.shape[1] * 0.15


def test_a_landscape_shows_the_backdrop_up_to_its_edges(make) -> None:
    picture = rgb(frames_of(make("mp4", format="landscape", seconds=0.04))[0])
    assert picture.shape == (256, 456, 3)
    assert picture.min(-1)[:, [0, -1]].min() > 100


@pytest.mark.parametrize("fps", [24, 50, 60])
def test_frame_rates(make, fps) -> None:
    path = make("mp4", fps=fps, size=96)
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == fps
        assert len(list(video.decode(video=0))) == np.ceil(SECONDS * fps)


# -- backgrounds ------------------------------------------------------------------------------------------------------


def encoded(pixels: np.ndarray, codec: str = "png", format: str = "rgb24", target: str | None = None) -> bytes:
    context = av.VideoCodecContext.create(codec, "w")
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt = target or format
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=format).reformat(format=context.pix_fmt)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def halves(width: int = 400, height: int = 200, alpha: bool = False) -> np.ndarray:  # noqa: FBT001, FBT002
    """A picture whose left half is red and whose right half is blue."""
    pixels = np.zeros((height, width, 4 if alpha else 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 220
    return pixels


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation]) + bytes(6)
    exif = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


@pytest.fixture
def load(tmp_path):
    """Load a picture for a frame of 64 × 64 pixels; return its colours in RGB."""

    def load(content: bytes) -> np.ndarray:
        (tmp_path / "picture").write_bytes(content)
        return load_picture(tmp_path / "picture", 64, 64)[..., 2::-1].astype(int)

    return load


RED, BLUE, WHITE = (220, 0, 0), (0, 0, 220), (255, 255, 255)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixels.mean((0, 1)) - colour).max() < 12)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_cover_the_frame(load, kind) -> None:
    codec, target = {"png": ("png", None), "jpeg": ("mjpeg", "yuvj444p"), "webp": ("libwebp", "yuv420p")}[kind]
    picture = load(encoded(halves(), codec, target=target))
    assert near(picture[:, :28], RED)
    assert near(picture[:, 36:], BLUE)


def test_a_picture_is_turned_as_its_camera_says(load) -> None:
    jpeg = encoded(halves(), "mjpeg", target="yuvj444p")
    turned = load(with_orientation(jpeg, 6))  # a quarter to the right: the left side becomes the top
    assert near(turned[:28], RED)
    assert near(turned[36:], BLUE)
    for orientation in (2, 3):  # mirrored; upside down
        assert near(load(with_orientation(jpeg, orientation))[:, :28], BLUE)
    left = load(with_orientation(jpeg, 8))
    assert near(left[:28], BLUE)


def test_transparent_and_grey_pictures(load) -> None:
    assert near(load(encoded(halves(alpha=True), format="rgba")), WHITE)
    assert near(load(encoded(np.full((50, 50), 90, np.uint8), format="gray")), (90, 90, 90))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "must be a JPEG, PNG or WebP file"),
        (b"<svg/>", "must be a JPEG, PNG or WebP file"),
        (b"GIF89a" + bytes(20), "must be a JPEG, PNG or WebP file"),
        (b"RIFF\x00\x00\x00\x00WAVE", "must be a JPEG, PNG or WebP file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "damaged"),
        (b"\xff\xd8\xff" + bytes(100), "damaged"),
        (encoded(halves(8002, 2)), "has 8002 × 2 pixels; a side may have at most 8,000"),
    ],
    ids=["empty", "svg", "gif", "wave", "png", "jpeg", "large"],
)
def test_what_is_no_picture_is_refused(load, content, problem) -> None:
    with pytest.raises(RenderError, match=f"^background: the picture .*{re.escape(problem)}"):
        load(content)


def test_a_small_file_that_claims_to_be_a_huge_picture_is_refused(load) -> None:
    png = bytearray(encoded(halves(10, 10)))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(RenderError, match="background: the picture"):
        load(bytes(png))


@pytest.mark.parametrize("container", ["mp4", pytest.param("gif", marks=pytest.mark.extended)])
def test_a_picture_is_behind_the_person(make, container, tmp_path) -> None:
    (tmp_path / "picture.png").write_bytes(encoded(halves()))
    frame = rgb(frames_of(make(container, background=tmp_path / "picture.png", seconds=0.04))[0])
    assert near(frame[:30, :60], RED)
    assert near(frame[:30, -60:], BLUE)
    assert frame[128, 128].min() > 60  # the face


def test_a_portrait_has_no_background_or_another_one(make) -> None:
    picture = (Path(__file__).parent / "portraits/collins.jpg").read_bytes()
    options = {
        "subject": "p_full",
        "character": PortraitSpec(model_id="p", display_name="P", picture=picture),
        "size": 160,
        "seconds": 0.04,
    }
    alpha = alpha_of(frames_of(make("webm", background="transparent", **options), "libvpx-vp9")[0])
    assert alpha[:10, :10].max() < 0.05
    assert alpha[60, 80] > 0.98
    frame = rgb(frames_of(make("gif", background="#0000DC", **options))[0])
    assert near(frame[:10, :10], BLUE)
    red, green, blue = frame[60, 80]  # the face
    assert red > green > blue > 60


# -- options ----------------------------------------------------------------------------------------------------------

DEFAULTS = {"size": 512, "format": "square", "fps": 25, "container": "mp4", "background": "character"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"size": 1080, "format": "landscape", "fps": 60.0}, {"size": 1080, "format": "landscape", "fps": 60}),
        ({"mood": "warm"}, {"mood": "warm"}),
        ({"mood": None}, {}),
        ({"container": "webm"}, {"container": "webm", "background": "transparent"}),
        ({"container": "mov", "background": "character"}, {"container": "mov"}),
        ({"container": "webp"}, {"container": "webp"}),
        ({"container": "webp", "background": "transparent"}, {"container": "webp", "background": "transparent"}),
        ({"background": "https://example.com/a.png"}, {"background": "https://example.com/a.png"}),
    ],
)
def test_options_complete_the_settings(given, expected) -> None:
    found = read_options(given, Settings(), with_mask=False)
    assert found == VideoOptions(**DEFAULTS | expected)
    assert (found.background_url is not None) == ("https" in found.background)


def test_settings_are_the_defaults_of_options() -> None:
    settings = Settings(size=720, format="landscape", fps=50)
    assert read_options({}, settings, with_mask=True) == VideoOptions(
        **DEFAULTS | {"size": 720, "format": "landscape", "fps": 50}
    )
    assert read_options({"fps": 24, "size": 512}, settings, with_mask=False).fps == 24
    # Not every default suits every container.
    assert read_options({"container": "gif"}, Settings(fps=60), with_mask=False).fps == 50


REFUSED = [
    ({"fsp": 30}, "'fsp' is not a field of video.generate; did you mean fps?"),
    ({"zoom": 2}, "'zoom' is not a field of video.generate; the optional ones are with_mask, size, format, fps,"),
    ({"size": 500}, "size must be one of 512, 720, 1080; got 500"),
    ({"size": True}, "size must be one of"),
    ({"size": "512"}, "size must be one of 512, 720, 1080; got '512'"),
    ({"format": "wide"}, "format must be one of square, portrait, landscape; got 'wide'"),
    ({"format": ["square"]}, "format must be one of"),
    ({"fps": 29.97}, "fps must be one of 24, 25, 30, 50, 60; got 29.97"),
    ({"mood": "angry"}, "mood must be one of warm, concerned, surprised, thoughtful; got 'angry'"),
    ({"mood": ["warm"]}, "mood must be one of"),
    ({"container": "avi"}, "container must be one of mp4, webm, mov, webp, gif; got 'avi'"),
    ({"container": "gif", "fps": 60}, "fps must be at most 50 for the container gif, got 60"),
    ({"background": "blue"}, "background must be a colour such as '#203040', 'transparent', 'character', or the URL"),
    ({"background": "#12345"}, "background must be"),
    ({"background": 7}, "background must be"),
    ({"background": "transparent"}, "background: 'transparent' needs the container webm, mov or webp; mp4 has no"),
    ({"background": "transparent", "container": "gif"}, "gif has no transparency"),
    ({"background": "ftp://example.com/a.png"}, "background must be an http(s):// URL"),
    ({"background": f"upload://{'0' * 64}"}, "background must be a colour"),
    ({"background": "https://me:secret@example.com/a.png"}, "background must not contain a user name"),
]


@pytest.mark.parametrize(("given", "problem"), REFUSED)
def test_bad_options_are_refused(given, problem) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_options(given, Settings(), with_mask=False)


@pytest.mark.parametrize("container", ["webm", "mov", "webp", "gif"])
def test_a_mask_needs_mp4(container) -> None:
    with pytest.raises(ValueError, match=f"with_mask needs the container mp4, not {container}"):
        read_options({"container": container}, Settings(), with_mask=True)


# -- in an engine -----------------------------------------------------------------------------------------------------


def test_the_api_names_the_invalid_field(http, say, model_id) -> None:
    for given, problem in REFUSED[:4]:
        reply = http.post(GENERATE, json={"model_id": model_id, "audio_url": say("hello"), **given})
        assert reply.status_code == 400
        assert problem in reply.json()["message"]


def test_the_api_describes_the_options(http) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for name in ("JobOfCharacter", "JobOfPose"):
        assert schemas[name]["additionalProperties"] is False
        assert schemas[name]["properties"]["fps"]["enum"] == [24, 25, 30, 50, 60, None]
        assert schemas[name]["properties"]["container"]["enum"] == ["mp4", "webm", "mov", "webp", "gif", None]
        assert {"size", "format", "background"} <= schemas[name]["properties"].keys()


@pytest.mark.parametrize(
    ("container", "media_type"),
    [("webm", "video/webm"), ("mov", "video/quicktime"), ("webp", "image/webp"), ("gif", "image/gif")],
)
def test_files_have_the_type_of_their_container(http, say, wait_for, container, media_type) -> None:
    job = {"model_id": "eva_a0008", "audio_url": say("hello"), "container": container}
    video = wait_for(http, http.post(GENERATE, json=job).json()["data"]["video_id"])
    assert video["video_url"].endswith(f".{container}")
    reply = http.get(video["video_url"], headers={"Range": "bytes=0-3"})
    assert (reply.status_code, reply.headers["content-type"], reply.content) == (206, media_type, b"eva_")
    assert http.get(video["video_url"].replace(f".{container}", ".mp4")).status_code == 404
    shown = re.search(rf'<(\w+) [^<>]*="[^"]*{video["video_id"]}.{container}"', http.get("/").text)
    assert shown[1] == {"webm": "video", "mov": "a"}.get(container, "img")  # a: the link that downloads it


@pytest.mark.anyio
async def test_a_picture_is_fetched_like_a_recording(tmp_path, monkeypatch) -> None:
    """From the request to the video, in a confined process; and it is not read from anywhere else."""
    monkeypatch.setattr("a2v.engine.renderer.WORKER", WORKER)  # other tests of this module replace it
    (tmp_path / "audio.wav").write_bytes(vowel(0.1))
    (tmp_path / "picture.png").write_bytes(encoded(halves()))
    urls = {name: (tmp_path / name).as_uri() for name in ("audio.wav", "picture.png", "missing.png")}
    urls["audio as picture"] = urls["audio.wav"]
    job = {"model_id": "omar_a0012", "audio_url": urls["audio.wav"], "format": "landscape", "container": "webm"}
    async with (
        LocalEngine(allow_files=tmp_path) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": engine.token}) as client,
    ):
        videos = {}
        for name in ("picture.png", "missing.png", "audio as picture"):
            reply = await client.post(GENERATE, json={**job, "background": urls[name]})
            video_id = reply.json()["data"]["video_id"]
            with anyio.fail_after(60):
                while True:
                    reply = await client.get("/v1/a2v/video.get", params={"video_id": video_id})
                    if reply.json()["data"]["status"] in ("finished", "error"):
                        break
                    await anyio.sleep(0.05)
            videos[name] = reply.json()["data"]
        assert videos["missing.png"]["message"].startswith("background: the file cannot be read: No such file")
        assert (
            videos["audio as picture"]["message"]
            == "background: the picture must be a JPEG, PNG or WebP file. Save it as one of these."
        )
        (tmp_path / "video.webm").write_bytes((await client.get(videos["picture.png"]["video_url"])).content)
    picture = rgb(frames_of(tmp_path / "video.webm")[0])
    assert picture.shape == (512, 910, 3)
    assert near(picture[:60, :100], RED)
    assert near(picture[:60, -100:], BLUE)
