"""Text that is not what it seems is refused where it comes in, and no error of a job shows what gives access to a URL."""

from __future__ import annotations

import traceback

import pytest

import a2v

URL = "https://example.com/a.wav"
INVISIBLE = {
    "zero width space": "\u200b",
    "byte order mark": "\ufeff",
    "word joiner": "\u2060",
    "soft hyphen": "\u00ad",
    "left-to-right embedding": "\u202a",
    "pop directional formatting": "\u202c",
    "right-to-left override": "\u202e",
    "left-to-right mark": "\u200e",
    "right-to-left isolate": "\u2067",
    "zero width joiner": "\u200d",
    "zero width non-joiner": "\u200c",
    "variation selector": "\ufe0f",
    "combining grapheme joiner": "\u034f",
    "Hangul filler": "\u3164",
    "braille blank": "\u2800",
    "tag": "\U000e0041",
    "no-break space": "\u00a0",
    "narrow no-break space": "\u202f",
    "em space": "\u2003",
    "line separator": "\u2028",
    "next line": "\u0085",
    "escape": "\x1b",
    "NUL": "\0",
    "delete": "\x7f",
    "half a character": "\ud800",
    "a byte that was not UTF-8": "\udce9",
}


def job(**changed) -> a2v.Job:
    return a2v.Job(**{"model_id": "eva_a0008", "audio_url": URL, "name": "hello"} | changed)


@pytest.mark.parametrize("character", INVISIBLE.values(), ids=INVISIBLE)
@pytest.mark.parametrize(
    ("column", "text"), [("audio_url", URL), ("model_id", "eva_a0008"), ("pose_id", "front"), ("name", "hello")]
)
def test_a_character_that_nobody_sees(column, text, character) -> None:
    for place in (0, 3, len(text)):
        wrong = text[:place] + character + text[place:]
        changed = {column: wrong} | ({"model_id": None} if column == "pose_id" else {})
        with pytest.raises(a2v.InvalidArgumentError, match=column) as caught:
            job(**changed)
        told = str(caught.value)
        assert f"U+{ord(character):04X}" in told
        assert told.isprintable()
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("space", [" ", "\u3000", "\t", "\n"])
def test_a_space_in_a_url(space) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match="audio_url must not contain '"):
        job(audio_url=f"https://example.com/a{space}b.wav")


@pytest.mark.parametrize(
    "name",
    [
        "می‌خواهم",  # Persian needs the zero width non-joiner
        "👩‍🚀 lands",
        "❤️",
        "1️⃣ first",
        "葛󠄀城",  # the variant of a Kanji
        "山田　太郎",
        "Müller & Söhne, 5 %",
        "nullable",
        "com10",
        "console.log",
        "x" * 200,
        "é" * 100,
    ],
)
def test_names_that_are_right(name) -> None:
    assert job(name=name).name == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "CON",
            "con",
            "PRN",
            "AUX",
            "NUL",
            "nul.txt",
            "NUL.tar.gz",
            "nul .txt",
            "COM0",
            "COM1",
            "com9.mp4",
            "LPT1",
            "lpt9",
        ),
        *("COM¹", "com².x", "LPT³", "CONIN$", "conout$", "CLOCK$"),
    ],
)
def test_names_of_devices(name) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match="Windows reserves it for a device"):
        job(name=name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "the name of a file"),
        (7, "the name of a file without its extension, got 7"),
        ("a/b", "it contains '/'"),
        ("a:b", "it contains ':'"),
        (".a", "it begins with a dot"),
        ("a.", "ends with a dot"),
        ("a ", "ends with a space"),
        ("é" * 101, "it has 202 bytes in UTF-8, and 200 are allowed"),
    ],
)
def test_names_that_are_wrong(name, told) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match="name") as caught:
        job(name=name)
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["\ud800", "caf\udce9", "a\0b", "\x1b[2J", "\x85"])
@pytest.mark.parametrize("place", ["{}", "column", "list", "mapping", "key of a mapping"])
def test_extra_text_that_no_file_can_hold(text, place) -> None:
    extra = {
        "{}": {text: 1},
        "column": {"note": text},
        "list": {"note": ["a", (1, text)]},
        "mapping": {"note": {"a": {"b": text}}},
        "key of a mapping": {"note": {text: 1}},
    }[place]
    with pytest.raises(a2v.InvalidArgumentError, match="extra column") as caught:
        job(extra=extra)
    assert str(caught.value).isprintable()


def test_extra_text_that_is_right() -> None:
    extra = {
        "note": "two\r\nlines\tand a tab",
        "name\u200b": "\ufeffé",
        7: [None, 1.5, {"deep": "x"}],
        "n": float("nan"),
    }
    assert job(extra=extra).extra == extra
    for wrong in (5, ["a"], "abc", None):
        with pytest.raises(a2v.InvalidArgumentError, match="extra must be a mapping"):
            job(extra=wrong)


SECRET = "s3cret"
WITH_SECRET = f"https://user:{SECRET}@example.com/a.wav?X-Amz-Signature={SECRET}#{SECRET}"


@pytest.mark.parametrize(
    "changed",
    [
        *({"audio_url": url} for url in (
            WITH_SECRET.replace("a.wav", "a b.wav"),
            WITH_SECRET + "\u200b",
            WITH_SECRET.replace("https", "ftp"),
            WITH_SECRET.replace("https://", "https:///"),
            WITH_SECRET.replace("example.com", "[example.com"),
            WITH_SECRET.replace("example.com", "example.com:99999"),
            WITH_SECRET.replace("example.com", "ex\u2100mple.com"),
            f"hello.wav?sig={SECRET}",
            WITH_SECRET.encode(),
            [WITH_SECRET],
        )),
        {"model_id": WITH_SECRET + "\u200b"},
        {"model_id": [WITH_SECRET]},
        {"pose_id": WITH_SECRET + "\u200b", "model_id": None},
        {"name": WITH_SECRET},
        {"name": {"url": WITH_SECRET}},
        {"with_mask": WITH_SECRET},
        {"extra": WITH_SECRET},
        {"extra": {"url\0": WITH_SECRET}},
    ],
)  # fmt: skip
def test_no_error_shows_what_gives_access(changed) -> None:
    with pytest.raises(a2v.InvalidArgumentError) as caught:
        job(**changed)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    for rows in ([{"model_id": "eva", "audio_url": "nonsense", "name": "n"} | changed], [[*changed.values()]]):
        with pytest.raises(a2v.ManifestError) as caught:
            a2v.read_manifest(rows)
        assert SECRET not in str(caught.value)
