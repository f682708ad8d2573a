"""The engine's voices: how texts are read, the speeches they make, and videos of them."""

from __future__ import annotations

import io
import os
import time
import wave
from importlib.util import find_spec

import httpx
import numpy as np
import pytest

import a2v
from a2v.engine import LocalEngine, voices
from a2v.engine.errors import SpeechError
from a2v.engine.reading import MAX_SENTENCE, check_characters, readable, sentences
from a2v.engine.speeches import KEEP_SECONDS, Speeches, speech_id_of, write_wav
from a2v.engine.voices import Utterance, synthesize, written_words

needs_voices = pytest.mark.skipif(find_spec("hibari") is None, reason="needs the extra voices")
SILENCE = Utterance(np.zeros(240, np.float32), 24_000, [])


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("It's “fine” – really…", "It's \"fine\" — really…"),
        ("20 €, 5$ and US$3", "€20, $5 and $3"),
        ("-5 °C, 3-5 and (-$2)", "minus 5 °C, 3-5 and (minus $2)"),
        ("1 000 000 or 2\u2019500 or 3\u00a0000", "1,000,000 or 2,500 or 3,000"),
        ("on 30.11.2026", "on 2026-11-30"),
        ("Call +49 (30) 123-45 or (555) 123-4567.", "Call plus four nine, three zero, one two three, four five or five five five, one two three, four five six seven."),
        ("agent 007, room 0.5", "agent zero zero seven, room 0.5"),
        ("2½ or ½", "2 and 1/2 or  1/2"),
        ("e.g. this, i.e. that, etc.", "for example this, that is that, et cetera."),
        ("a PhD vs. a Ph.D.", "a PhD versus a P H D."),
        ("the U.S. and the U.K.", "the US and the UK."),
        ("mail a.b@c-d.com, see https://www.example.org/x_y.", "mail a dot b at c dash d dot com, see example dot org slash x underscore y."),
        ("100 km/h at 2 GHz", "100 kilometers per hour at 2 gigahertz"),
        ("# Title\n* **bold** and _soft_", "Title\nbold and soft"),
        ("Café, naïve, Straße, Łódź, \uff41", "Café, naive, Strasse, Lodz, a"),
        ("#news for @you", "hashtag news for at you"),
        ("a\u200bb\u00adc", "abc"),
        ("5 m² × 3 ± 1 → №2", "5 m squared  times  3  plus or minus  1  to  number 2"),
    ],
)  # fmt: skip
def test_what_the_synthesizer_reads(written, read) -> None:
    check_characters(written)
    assert readable(written, {"café"}) == read


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Say 日本!", "'日' (U+65E5 CJK UNIFIED IDEOGRAPH-65E5, character 5), '本'."),
        ("Hi 😀", "'😀' (U+1F600 GRINNING FACE, character 4)."),
        ("Привет", "'П' (U+041F CYRILLIC CAPITAL LETTER PE, character 1)"),
        ("a\x07", r"'\x07' (U+0007, character 2)."),
        ("".join(map(chr, range(0x4E00, 0x4E20))), " and 22 more."),
    ],
)
def test_characters_that_cannot_be_spoken_are_named(text, named) -> None:
    with pytest.raises(SpeechError) as caught:
        check_characters(text)
    assert named in str(caught.value)


def test_sentences() -> None:
    text = 'Dr. A. B. Smith met Mr. Jones, e.g. 3 times. "Really?" she said! No. 5 is alive\nand well.'
    assert list(sentences(text)) == [
        "Dr. A. B. Smith met Mr. Jones, e.g. 3 times.",
        '"Really?" she said!',
        "No. 5 is alive",
        "and well.",
    ]


def test_long_sentences_are_split_at_clauses_then_at_words_then_anywhere() -> None:
    for text in ("a clause, " * 100, "word " * 200, "x" * 1000):
        parts = list(sentences(text))
        assert max(map(len, parts)) <= MAX_SENTENCE
        assert "".join(parts).replace(" ", "") == text.replace(" ", "")
    assert all(part.endswith(",") for part in sentences("a clause, " * 100))


def test_words_as_they_are_written() -> None:
    def read(*words):
        return [a2v.Word(text=word, start=at, end=at + 0.5) for at, word in enumerate(words)]

    assert written_words("In 1984, we left.", read("In", "nineteen", "eighty", "four", "we", "left")) == [
        a2v.Word(text="In", start=0, end=0.5),
        a2v.Word(text="1984,", start=1, end=3.5),
        a2v.Word(text="we", start=4, end=4.5),
        a2v.Word(text="left.", start=5, end=5.5),
    ]
    both = written_words("17 Nov.", read("November", "seventeenth"))
    assert [(word.start, word.end) for word in both] == [(0, pytest.approx(0.5)), (pytest.approx(0.5), 1.5)]
    assert [word.text for word in written_words("— a —", read("a"))] == ["—", "a", "—"]
    assert written_words("", read("a")) == written_words("a", []) == []


# -- the synthesizer --------------------------------------------------------------------------------------------------


@needs_voices
def test_a_short_sentence() -> None:
    utterance = synthesize("Hello, Dr. Smith!", "heart")
    assert 1 < len(utterance.samples) / utterance.rate < 3
    assert np.abs(utterance.samples).max() > 0.05
    assert [word.text for word in utterance.words] == ["Hello,", "Dr.", "Smith!"]
    times = [time for word in utterance.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= len(utterance.samples) / utterance.rate
    # The sound is where the words are.
    loud = [np.abs(utterance.samples[int(w.start * 24_000) : int(w.end * 24_000)]).mean() for w in utterance.words]
    assert min(loud) > 5 * np.abs(utterance.samples[: int(times[0] * 24_000 * 0.6)]).mean()


@needs_voices
@pytest.mark.parametrize(
    ("text", "voice_name", "problem"),
    [
        ("...", "heart", "nothing that can be spoken"),
        ("Hello", "nobody", "there is no voice 'nobody', only heart"),
        ("Привет", "heart", "cannot speak: 'П'"),
        ("Hello there. " * 3, "heart", "longer than 1 s"),
    ],
)
def test_texts_that_are_refused(text, voice_name, problem) -> None:
    with pytest.raises(SpeechError, match=problem):
        synthesize(text, voice_name, max_seconds=1)


@needs_voices
@pytest.mark.extended
def test_any_length_and_the_same_sound_each_time() -> None:
    text = "One sentence.\n\n" + "1,234,567,890 and " * 20 + "the end."
    first, second = synthesize(text, "heart"), synthesize(text, "heart")
    assert np.array_equal(first.samples, second.samples)
    assert "".join(word.text for word in first.words) == text.replace(" ", "").replace("\n", "")


# -- speeches ---------------------------------------------------------------------------------------------------------


def test_a_wav_file() -> None:
    file = io.BytesIO()
    write_wav(file, Utterance(np.array([0, 1.5, -1.5], np.float32), 24_000, []))
    file.seek(0)
    with wave.open(file) as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (24_000, 1, 2)
        assert np.frombuffer(read.readframes(3), "<i2").tolist() == [0, 32767, -32767]


def test_speeches_are_kept_for_a_day(tmp_path) -> None:
    speeches = Speeches(tmp_path / "speeches")
    new, old, needed = (speeches.add(SILENCE) for _ in range(3))
    past = time.time() - KEEP_SECONDS - 60
    for speech_id in (old, needed):
        os.utime(speeches.path(speech_id), (past, past))
    assert speeches.sweep([f"http://engine.example:1/a/speeches/{needed}.wav", "https://x/a.wav"]) == 0
    assert [speeches.path(each).exists() for each in (new, old, needed)] == [True, False, True]
    assert not speeches.copy(f"https://x/speeches/{old}.wav", tmp_path / "copy")
    assert not speeches.copy("https://x/speeches/../tasks.wav", tmp_path / "copy")
    assert speeches.copy(f"https://x/speeches/{new}.wav?t=1", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == speeches.path(new).read_bytes()
    assert speech_id_of(f"https://x/speeches/{new}.wav/a") is None


# -- the calls --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_voice(monkeypatch):
    """A voice that makes silence at once."""
    voice = a2v.Voice(voice_name="heart", gender="female", language="English", locale="en-US", tags=("quick",))
    monkeypatch.setattr(voices, "all_voices", lambda: {"heart": voice})
    spoken = []

    def speak(text, voice_name, *, max_seconds=1800.0):
        check_characters(text)
        spoken.append((text, voice_name, max_seconds))
        words = [a2v.Word(text=word, start=float(at), end=at + 0.5) for at, word in enumerate(text.split())]
        return Utterance(SILENCE.samples, SILENCE.rate, words)

    monkeypatch.setattr(voices, "synthesize", speak)
    return spoken


def test_the_calls(http, engine, quick_voice) -> None:
    (voice,) = http.get("/v1/tts/voice.list").json()["data"]
    url = f"{engine.base_url}/voices/heart.wav"
    assert voice == {
        "voice_name": "heart",
        "gender": "female",
        "language": "English",
        "locale": "en-US",
        "preview_url": url,
        "tags": ["quick"],
    }
    assert httpx.get(url).headers["content-type"] == "audio/wav"
    assert httpx.get(f"{engine.base_url}/voices/nobody.wav").status_code == 404
    body = {"text": "Hello, world!", "voice_name": "heart"}
    speech = http.post("/v1/tts/voice.generate", json=body).json()["data"]
    assert speech["words"][1] == {"text": "world!", "start": 1.0, "end": 1.5}
    reply = httpx.get(speech["url"], headers={"Range": "bytes=0-3"})
    assert (reply.status_code, reply.content, reply.headers["content-type"]) == (206, b"RIFF", "audio/wav")
    for wrong in ("0" * 32, "..%2f..%2ftoken"):
        assert httpx.get(f"{engine.base_url}/speeches/{wrong}.wav").status_code == 404
    assert http.get("/v1/tts/voice.list", headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        ({"text": "Hello", "voice_name": "nobody"}, 404, "voice_name must be one of: heart"),
        ({"text": "Привет", "voice_name": "heart"}, 400, "cannot speak: 'П'"),
        ({"text": "a" * 5001, "voice_name": "heart"}, 400, "5001 characters, and 5000 are allowed"),
        ({"text": "", "voice_name": "heart"}, 400, "text must be the text to be spoken"),
        ({"voice_name": "heart"}, 400, "text is missing"),
        ({"text": "Hello"}, 400, "voice_name is missing"),
        (["Hello"], 400, "must be a JSON object"),
    ],
)
def test_requests_that_are_refused(http, quick_voice, body, status, problem) -> None:
    reply = http.post("/v1/tts/voice.generate", json=body)
    assert (reply.status_code, problem in reply.json()["message"]) == (status, True)
    assert not [spoken for spoken in quick_voice if spoken[0] != "Hello"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_like_the_hosted_service(quick_voice) -> None:
    async with LocalEngine(like_hosted=True) as engine, a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client:
        await client.voices.generate(text="a" * 500, voice_name="heart")
        with pytest.raises(a2v.APIError, match="501 characters, and 500 are allowed"):
            await client.voices.generate(text="a" * 501, voice_name="heart")
    assert [seconds for _, _, seconds in quick_voice] == [60.0]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("revision", ["seed", "later"])
async def test_an_engine_without_voices_says_so(monkeypatch, revision) -> None:
    def missing():
        raise ImportError('voices need another package (hibari-tts): pip install "a2v[voices]"')

    monkeypatch.setattr(voices, "all_voices", missing)
    problem = "a2v\\[voices\\]" if revision == "later" else "there is no /v1/tts/voice"
    async with LocalEngine(revision=revision) as engine, a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client:
        with pytest.raises(a2v.NotFoundError, match=f"voice.list.*{problem}"):
            await client.voices.list()
        with pytest.raises(a2v.NotFoundError, match=f"voice.generate.*{problem}"):
            await client.videos.generate(model_id="eva_a0008", text="Hello!", voice_name="heart")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_video_of_a_speech_on_another_port(quick_voice, quick_renders, tmp_path, monkeypatch) -> None:
    """The engine takes the URLs of its own speeches, though it may not fetch private addresses, also after a restart."""
    monkeypatch.setattr("a2v.engine.speeches.write_wav", lambda file, _: file.write(b"hello"))
    settings = {"data_dir": tmp_path / "engine", "token": "t"}
    async with LocalEngine(**settings) as engine, a2v.AsyncA2V("t", base_url=engine.base_url) as client:
        speech = await client.voices.generate(text="Hello!", voice_name="heart")
        assert (await (await client.videos.generate(model_id="eva_a0008", audio_url=speech.url)).wait()).is_terminal
    async with LocalEngine(**settings) as engine, a2v.AsyncA2V("t", base_url=engine.base_url) as client:
        assert engine.base_url not in speech.url
        task = await client.videos.generate(model_id="eva_a0008", audio_url=speech.url)
        assert (await task.download(tmp_path / "v.mp4")).read_text().endswith(": hello")
