"""Captions of videos: the track is demuxed again, and the picture is compared with one without captions."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from a2v._core.captions import Cue, read_captions, to_vtt
from a2v._values.models import Word
from a2v.engine import LocalEngine, Settings
from a2v.engine.audio import Recording
from a2v.engine.captions import Captions
from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.drawing.colours import bgra
from a2v.engine.drawing.text import Overlay, draw_caption, missing_characters
from a2v.engine.errors import RenderError
from a2v.engine.render import _transcript_warning, render
from a2v.engine.video_options import read_options
from tests.engine.test_video_formats import frames_of, vowel

SAMPLES = Path(__file__).parents[2] / "a2v/engine/recordings"
SHOWN = [Cue(0.08, 0.2, ["Hello & {you}"]), Cue(0.24, 0.6, ["Łódź"])]
SRT = "1\n00:00:00,080 --> 00:00:00,200\nHello\n"


@pytest.fixture
def make(tmp_path):
    """Render a vowel; return the path of the video."""

    def make(container: str = "mp4", captions: Captions | None = None, subject: str = "eva_a0008", **options) -> Path:
        path = tmp_path / f"video{'' if captions is None else '-with-captions'}.{container}"
        options.setdefault("size", 256)
        render(Recording(vowel()), subject, path, container=container, captions=captions, **options)
        return path

    return make


def frames(path: Path) -> list[np.ndarray]:
    decoded = frames_of(path, "libvpx-vp9" if path.suffix == ".webm" else None)
    return [frame.to_ndarray(format="rgba").astype(int) for frame in decoded]


def track(path: Path) -> tuple[str, str | None, list[tuple[float, float, bytes]]]:
    with av.open(str(path)) as video:
        (stream,) = video.streams.subtitles
        # Between two captions of an MP4 there is an empty one.
        packets = [packet for packet in video.demux(stream) if len(bytes(packet)) > 2]
        base = stream.time_base
        shown = [(float(one.pts * base), float((one.pts + one.duration) * base), bytes(one)) for one in packets]
        return stream.codec_context.name, stream.language, shown


@pytest.mark.parametrize(
    ("container", "codec", "texts"),
    [
        ("mp4", "mov_text", [b"\0\x0dHello & {you}", b"\0\x07" + "Łódź".encode()]),
        ("webm", "webvtt", [b"Hello &amp; {you}", "Łódź".encode()]),
        pytest.param(
            "mov", "mov_text", [b"\0\x0dHello & {you}", b"\0\x07" + "Łódź".encode()], marks=pytest.mark.extended
        ),
    ],
)
def test_a_track(make, container, codec, texts) -> None:
    path = make(container, Captions(ways=["track"], cues=SHOWN))
    name, language, shown = track(path)
    assert (name, language or "und") == (codec, "und")
    assert [text for _, _, text in shown] == texts
    # The last one ends with the video.
    assert [one[:2] for one in shown] == [pytest.approx((0.08, 0.2)), pytest.approx((0.24, 0.4))]
    with av.open(str(path)) as video:
        assert [one.type for one in video.streams] == ["video", "audio", "subtitle"]
        assert video.duration / 1e6 == pytest.approx(0.4, abs=0.05)


def test_words_become_captions(make) -> None:
    words = [Word(text=word, start=at / 10, end=at / 10 + 0.1) for at, word in enumerate(("I", "say", "hello."))]
    path = make("mp4", Captions.load(Captions(ways=["track"], words=words).dump()))
    assert track(path)[1:] == ("eng", [(0.0, pytest.approx(0.4), b"\0\x0cI say hello.")])


def check_burned(plain: list[np.ndarray], burned: list[np.ndarray], *, tolerance: int) -> None:
    """Captions are in the lower part of the frames of their time, and nothing else has changed."""
    assert len(plain) == len(burned) == 10
    height = plain[0].shape[0]
    for number, (one, other) in enumerate(zip(plain, burned, strict=True)):
        changed = np.abs(one - other).max(-1) > tolerance
        # The encoder may change a few other pixels a little.
        for outside in (changed[: height * 3 // 4], changed[-(height // 32) :], changed[:, : height // 25]):
            assert outside.mean() < 0.002
        lower = other[height * 3 // 4 :]
        is_shown = 0.08 <= number / 25 < 0.2 or number / 25 >= 0.24
        assert (changed.mean() > 0.004) == is_shown, number
        if is_shown:
            assert ((lower[..., :3].min(-1) > 230) & (lower[..., 3] > 230)).sum() > 50  # letters


@pytest.mark.parametrize(
    ("container", "background"),
    [
        ("mp4", "#406080"),
        ("webm", "transparent"),
        pytest.param("mov", "transparent", marks=pytest.mark.extended),
        pytest.param("gif", "character", marks=pytest.mark.extended),
    ],
)
def test_burned_in_captions(make, container, background) -> None:
    captions = Captions(ways=["burned"], cues=SHOWN)
    plain = make(container, background=background)
    burned = make(container, captions, background=background)
    check_burned(frames(plain), frames(burned), tolerance=40 if container != "gif" else 90)
    with av.open(str(burned)) as video:
        assert not video.streams.subtitles


def test_a_portrait_with_captions(make) -> None:
    picture = (Path(__file__).parent / "portraits/collins.jpg").read_bytes()
    character = PortraitSpec(model_id="collins", display_name="Collins", gender="male", picture=picture)
    plain = make(subject="collins", character=character)
    burned = make("mp4", Captions(ways=["burned"], cues=SHOWN), subject="collins", character=character)
    check_burned(frames(plain), frames(burned), tolerance=40)


@pytest.mark.extended
def test_a_mask_has_no_captions(make, tmp_path) -> None:
    masks = []
    for captions in (None, Captions(ways=["burned", "track"], cues=SHOWN)):
        masks.append(tmp_path / f"{captions is None}.mp4")
        make("mp4", captions, mask=masks[-1])
    assert masks[0].read_bytes() == masks[1].read_bytes()


def test_a_file_of_captions(make, tmp_path) -> None:
    captions = Captions(ways=["files"], cues=SHOWN)
    path = make("gif", captions, vtt=tmp_path / "captions.vtt")
    assert [cue.lines for cue in read_captions((tmp_path / "captions.vtt").read_text())] == [cue.lines for cue in SHOWN]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["captions.vtt", path.name]
    plain = path.read_bytes()
    with pytest.raises(RenderError, match="another recording"):
        make("gif", Captions(ways=["files"], cues=[Cue(0.5, 0.8, ["late"])]), vtt=tmp_path / "other.vtt")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["captions.vtt", path.name]
    assert path.read_bytes() == plain


@pytest.mark.parametrize(
    ("seconds", "warning"), [(70.0, "the transcript ends at 0:05 of 1:10, so there are no captions"), (14.0, None)]
)
def test_a_transcript_that_ends_early(seconds, warning) -> None:
    assert str(_transcript_warning(5.2, seconds)).startswith(str(warning))


@pytest.mark.extended
def test_a_video_of_a_transcript_that_ends_early_has_a_warning(tmp_path) -> None:
    pytest.importorskip("pocketsphinx", reason="needs the extra transcripts")
    pieces = [*Recording(SAMPLES / "slt.flac").pieces(), np.zeros(12 * 16_000, np.float32)]
    with wave.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((np.concatenate(pieces) * 32767).astype("<i2").tobytes())
    captions = Captions(ways=["files"], transcript="He turned sharply, and faced Gregson across the table.")
    path, vtt = tmp_path / "talk.mp4", tmp_path / "talk.vtt"
    warning = render(Recording(tmp_path / "talk.wav"), "eva_a0008", path, captions=captions, vtt=vtt, size=256)
    assert warning == "the transcript ends at 0:03 of 0:15, so there are no captions after that"
    assert read_captions(vtt.read_text())[-1].end < 5


def test_captions_of_another_recording(make) -> None:
    late = [*SHOWN, Cue(65.0, 66.0, ["late"])]
    with pytest.raises(
        RenderError, match=r"the last one begins at 65.0 s, but the recording ends at 0.4 s: .* another recording"
    ):
        make("mp4", Captions(ways=["track"], cues=late))


# -- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("milliseconds", [1360, 1570, 2000])
def test_no_caption_is_empty(milliseconds) -> None:
    """One that begins at the end of the recording would be, and readers refuse it."""
    end = f"00:00:0{milliseconds // 1000},{milliseconds % 1000:03}"
    shown = read_captions(f"1\n00:00:00,000 --> 00:00:00,100\nOne.\n\n2\n{end} --> 00:00:20,000\nTwo.\n")
    file = Captions(ways=["files"], cues=shown).of_video(milliseconds / 1000, is_wide=True).file
    assert file is not None
    assert [cue.lines for cue in read_captions(to_vtt(file))] == [["One."]]


@pytest.mark.parametrize(("width", "height"), [(512, 512), (512, 910), (910, 512), (1920, 1080)])
@pytest.mark.parametrize("text", ["W" * 32, "i", "Hello, you!"])
def test_captions_stay_within_the_margins(width, height, text) -> None:
    pixels, (left, top, right, bottom) = draw_caption([text, "two"], width, height, bgra)
    assert pixels.shape == (bottom - top, right - left, 4)
    assert {left % 2, top % 2, right % 2, bottom % 2} == {0}
    assert left >= width * 0.04
    assert right <= width * 0.96
    assert top > height * 0.7
    assert bottom <= height * 0.96
    assert abs((left + right) / 2 - width / 2) <= 2
    # White letters in a dark box, whose corners are round.
    assert (pixels[..., :3].min(-1) > 250).any()
    assert pixels[0, 0, 3] < 60
    assert 150 < pixels[(bottom - top) // 2, 4, 3] < 200


def test_an_overlay_changes_no_more_than_necessary() -> None:
    overlay = Overlay(SHOWN, 256, 256, bgra)
    picture = np.full((256, 256, 4), 100, np.uint8)
    assert overlay.show(picture, (0, 0, 256, 256), 0.0) == (0, 0, 256, 256)
    assert (overlay.pixels == picture).all()
    _, top, _, bottom = place = overlay.show(picture, (0, 0, 0, 0), 0.08)  # the caption appears
    assert top > 192
    with_caption = overlay.pixels.copy()
    assert overlay.show(picture, (0, 0, 0, 0), 0.12) == (0, 0, 0, 0)  # and stays
    moved = picture.copy()
    moved[:210] = 50
    assert overlay.show(moved, (0, 0, 256, 210), 0.16) == (0, 0, 256, 210)
    assert (overlay.pixels[210:] == with_caption[210:]).all()
    assert (overlay.pixels[:top] == moved[:top]).all()
    assert overlay.show(moved, (0, 0, 0, 0), 0.2) == place  # and disappears
    assert (overlay.pixels == moved).all()
    assert bottom < 256


def test_the_characters_of_the_font() -> None:
    latin = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA0, 0x180)])).replace("\xad", "")
    assert missing_characters(latin + "“”„–—…•€™«» Привет Γειά") == []
    assert missing_characters("日本 😀") == ["日", "本", "😀"]


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"captions": "srt"}, "captions must be one of files, track, burned, or a list of them; got 'srt'"),
        ({"captions": []}, "captions must be one of files, track, burned, or a list of them; got []"),
        ({"captions": 7}, "captions must be one of files, track, burned"),
        ({"captions": "track", "container": "gif"}, "captions: a gif has no subtitle track; use captions: 'burned'"),
        ({"captions_file": SRT}, "captions_file needs captions: 'files', 'track' or 'burned'"),
        ({"captions": "track", "captions_file": 7}, "captions_file: it must be the text of a SubRip or WebVTT file"),
        ({"captions": "track", "captions_file": "Hello"}, "captions_file: line 1: 'Hello' is not the time"),
        (
            {"captions": "burned", "captions_file": SRT.replace("Hello", "日 \u200b")},
            "captions cannot be burned in with '\\u200b' (U+200B), '日' (U+65E5): the font has Latin",
        ),
    ],
)
def test_options_that_are_refused(options, problem) -> None:
    with pytest.raises(ValueError) as caught:  # the message is compared
        read_options(options, Settings(), with_mask=False)
    assert problem in str(caught.value)


def test_a_track_may_have_any_characters() -> None:
    options = read_options(
        {"captions": ["track"], "captions_file": SRT.replace("Hello", "日本")}, Settings(), with_mask=False
    )
    assert options.cues == [Cue(0.08, 0.2, ["日本"])]


@pytest.mark.anyio
async def test_the_captions_of_a_job(tmp_path) -> None:
    import a2v

    (tmp_path / "vowel.wav").write_bytes(vowel())
    recording = (tmp_path / "vowel.wav").as_uri()
    captions = {"captions": ["burned", "track", "files"], "captions_file": SRT}
    async with (
        LocalEngine(allow_files=tmp_path) as engine,
        a2v.AsyncA2V(base_url=engine.base_url, token=engine.token) as client,
    ):
        for options, url, problem in (
            ({"captions": "track"}, recording, "the recording is not a speech of this engine"),
            ({"captions": "track"}, f"{engine.base_url}/speeches/{'0' * 32}.wav", "there is no such speech"),
            (captions | {"captions_file": "x" * 200_001}, recording, "it has 200,001 characters"),
        ):
            with pytest.raises(a2v.APIError, match=problem):
                await client.videos.generate(model_id="eva_a0008", audio_url=url, options=options)
        task = await client.videos.generate(model_id="eva_a0008", audio_url=recording, options=captions)
        path = await task.download(tmp_path / "video.mp4")
        for name in ("video.srt", "video.vtt"):
            await task.download(tmp_path / name, captions=True)
        url = (await task.wait()).captions_url
        async with httpx.AsyncClient() as browser:
            answer = await browser.get(url)
            missing = await browser.get(url.replace(".vtt", ".srt"))
    assert (tmp_path / "video.srt").read_text() == SRT
    assert (tmp_path / "video.vtt").read_text() == answer.text == "WEBVTT\n\n00:00:00.080 --> 00:00:00.200\nHello\n"
    assert answer.headers["content-type"].startswith("text/vtt")
    assert missing.status_code == 404
    assert [text for _, _, text in track(path)[2]] == [b"\0\x05Hello"]


def test_the_words_of_a_speech_are_kept(tmp_path) -> None:
    from a2v.engine.speeches import Speeches
    from a2v.engine.voices import Utterance

    speeches = Speeches(tmp_path / "speeches")
    words = [Word(text="Grüße", start=0.1, end=0.2)]
    speech_id = speeches.add(Utterance(np.zeros(800, np.float32), 16_000, words))
    assert speeches.words(f"https://host/speeches/{speech_id}.wav") == words
    assert speeches.words(f"https://host/speeches/{'0' * 32}.wav") is None
    assert speeches.words("https://host/a.wav") is None
    assert json.loads((tmp_path / "speeches" / f"{speech_id}.json").read_text())
