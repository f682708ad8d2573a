"""The description at ``/openapi.json`` is correct: Schemathesis sends valid and invalid requests, and checks the responses."""

from __future__ import annotations

import time
from itertools import product

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import composite, from_regex, lists, sampled_from

from a2v._core import wire
from a2v._core.captions import Cue, read_captions, to_srt, to_vtt
from a2v.engine import LocalEngine, Settings
from a2v.engine.characters import built_in_characters
from a2v.engine.characters.catalogue import Characters
from a2v.engine.openapi import openapi_document
from a2v.engine.video_options import read_options

pytestmark = pytest.mark.extended
jsonschema = pytest.importorskip("jsonschema", reason="needs the dependency group `extended`")
schemathesis = pytest.importorskip("schemathesis", reason="needs the dependency group `extended`")

SEED = [(wire.CHARACTER_LIST, "GET"), (wire.VIDEO_GENERATE, "POST"), (wire.VIDEO_GET, "GET")]
LATER = [
    (wire.VIDEO_LIST, "GET"),
    (wire.AVATAR_LIST, "GET"),
    (wire.AVATAR_POSE_LIST, "GET"),
    (wire.VOICE_LIST, "GET"),
    (wire.VOICE_GENERATE, "POST"),
]
UPLOADS = [(wire.UPLOADS, "GET"), (f"{wire.UPLOADS}/{{sha256}}", "GET"), (f"{wire.UPLOADS}/{{sha256}}", "PUT")]
CALLS = {"seed": SEED + UPLOADS, "later": SEED + LATER + UPLOADS}
MODES = {"allowed": schemathesis.GenerationMode.POSITIVE, "forbidden": schemathesis.GenerationMode.NEGATIVE}
# A call without parameters has no invalid requests.
WHAT_TO_ASK = [
    (revision, path, method, mode)
    for revision, calls in CALLS.items()
    for path, method in calls
    for mode in MODES
    if mode == "allowed" or path in (wire.VIDEO_GENERATE, wire.VIDEO_GET, wire.AVATAR_POSE_LIST, wire.VOICE_GENERATE)
]


@composite
def captions(draw) -> str:
    """Files of captions that can also be burned in."""
    lines = draw(lists(from_regex(r"[A-Za-z][A-Za-z ,.]{0,60}", fullmatch=True), min_size=1, max_size=3))
    return draw(sampled_from([to_srt, to_vtt]))([Cue(at, at + 1, [line]) for at, line in enumerate(lines)])


schemathesis.openapi.format("captions", captions())
# Deterministic, so that a failure can be reproduced.
BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def described(request, stand_in):
    """An engine of each revision that fetches nothing, and its description."""

    async def fetch(url, destination, _settings):
        destination.write_text(url.rpartition("/")[2] if url.startswith("https://say.example/") else "hello")

    with pytest.MonkeyPatch.context() as patch, start_blocking_portal() as portal:
        patch.setattr("a2v.engine.renderer.WORKER", stand_in)
        patch.setattr("a2v.engine.render_queue.fetch_recording", fetch)
        running = LocalEngine(token="t", revision=request.param, requests_per_minute=100_000)
        with portal.wrap_async_context_manager(running) as engine:
            yield request.param, schemathesis.openapi.from_url(f"{engine.base_url}/openapi.json")


@pytest.mark.parametrize("described", CALLS, indirect=True)
def test_every_call_is_described(described):
    revision, schema = described
    operations = [found.ok() for found in schema.get_all_operations()]
    assert [(one.path, one.method.upper()) for one in operations] == CALLS[revision]


@pytest.mark.parametrize("described", CALLS, indirect=True)
def test_videos_of_every_status_match_the_description(described):
    generate, get = (described[1][path][method] for path, method in SEED[1:])
    headers = {"Authorization": "Bearer t"}
    seen = {}
    for said in ("sleep", "bad", "hello"):
        body = {"model_id": "eva_a0008", "audio_url": f"https://say.example/{said}"}
        reply = generate.Case(body=body, media_type="application/json").call_and_validate(headers=headers)
        look = get.Case(query={"video_id": reply.json()["data"]["video_id"]})
        end = time.monotonic() + 20
        while True:
            seen[said] = look.call_and_validate(headers=headers).json()
            under_way = seen[said]["code"] == 0 and seen[said]["data"].get("status") in (
                None,
                "pending",
                "in_progressing",
            )
            if said == "sleep" or not under_way or seen[said]["data"]["video_url"] or time.monotonic() > end:
                break
            time.sleep(0.05)
    assert seen["sleep"]["data"]["video_url"] is None
    assert "this is no recording" in str(seen["bad"])
    assert seen["hello"]["data"]["video_url"]


@pytest.mark.parametrize(("described", "path", "method", "mode"), WHAT_TO_ASK, indirect=["described"])
def test_responses_match_the_description(described, path, method, mode):
    operation = described[1][path][method]
    statuses = set()

    @BOUNDED
    @given(operation.as_strategy(generation_mode=MODES[mode]))
    def ask(case):
        statuses.add(case.call_and_validate(headers={"Authorization": "Bearer t"}).status_code)

    ask()
    # No generated content has the hash in the path: 409.
    assert statuses & ({200, 404, 409} if mode == "allowed" else {400, 404})


VALUES = {
    "size": (512, 500, "512", None),
    "format": ("landscape", "wide", None),
    "fps": (24, 50, 60, 29.97, None),
    "container": ("mp4", "webm", "mov", "webp", "gif", "avi", None),
    "background": ("character", "transparent", "#20aF60", "#12345", "https://example.com/a.png", "blue", 7, None),
    "with_mask": (True, False, None),
}
MOODS = {"mood": ("warm", "thoughtful", "angry", 1, None), "fps": (30, 29.97), "with_mask": (None,)}
SRT = "1\n00:00:00,000 --> 00:00:05,000\nHello\n"
CAPTIONS = {
    "container": ("mp4", "gif", None),
    "captions": ("track", "burned", ["burned", "track"], [], "files", ["x"], 7, None),
    "captions_file": (SRT, to_vtt([Cue(1, 2, ["Grüße!", "Привет!"])]), "1\nHello\n", 7, None),
    "transcript": ("Grüße, 日本!\n", " \n", 7, None),
    "with_mask": (None,),
}
FORMATS = jsonschema.FormatChecker([])


@FORMATS.checks("captions", raises=ValueError)
def is_captions(value) -> bool:
    return not isinstance(value, str) or bool(read_captions(value))


@pytest.mark.parametrize(("fps", "cases"), [(25, VALUES), (60, VALUES), (25, CAPTIONS), (25, MOODS)])
def test_the_description_accepts_the_same_options_as_the_engine(fps, cases):
    engine = Settings(fps=fps)
    document = openapi_document(engine, Characters(built_in_characters()), "http://127.0.0.1")
    # A speech, so that captions need nothing else.
    job = {"pose_id": "eva_a0008_front", "audio_url": f"https://example.com/speeches/{'0' * 32}.wav"}
    validator = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/JobOfPose", "components": document["components"]}, format_checker=FORMATS
    )
    for values in product(*cases.values()):
        sent = dict(zip(cases, values, strict=True))
        given = {name: value for name, value in sent.items() if name != "with_mask" and value is not None}
        try:
            read_options(given, engine, with_mask=bool(sent["with_mask"]))
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = None
        assert validator.is_valid(job | sent) is (refusal is None), (sent, refusal)


@pytest.mark.parametrize("like_hosted", [False, True])
def test_the_description_has_the_limit_of_texts(like_hosted):
    engine = Settings(like_hosted=like_hosted)
    document = openapi_document(engine, Characters(built_in_characters()), "http://127.0.0.1")
    text = jsonschema.Draft202012Validator(document["components"]["schemas"]["Text"]["properties"]["text"])
    limit = 500 if like_hosted else 5000
    assert f"at most {limit:,} characters" in text.schema["description"]
    assert [text.is_valid("a" * length) for length in (1, limit, limit + 1)] == [True, True, False]
