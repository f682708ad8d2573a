"""Replies that nobody thought of: each leads to a value, or to an error of a2v that can be told, stored and printed.

``A2V_FUZZ_CASES`` says how many there are (400 if unset), over all calls. Seeded, so that a failure comes again.
"""

from __future__ import annotations

import json
import os
import random

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import a2v
from a2v._core import wire
from a2v._core.rate_limiter import RateLimiter, RequestKind
from a2v._core.responses import Retry, classify
from a2v._core.wire import Response
from a2v._values.jobs import Job
from a2v._values.models import Character, Video

from .conftest import CANARY, check
from .server import Connection, Port

CASES = int(os.environ.get("A2V_FUZZ_CASES", "400"))
JOB = Job("eva_a0008", "https://example.com/hello.wav")
EXACTLY = settings(max_examples=CASES // 4, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

# What the service's own document shows, and its later revisions.
SEEDS = [
    {"code": 0, "message": "success", "data": {"video_id": "v1", "video_url": "https://files.example/v.mp4"}},
    {"code": "0", "message": "success", "data": {"video_id": "v1", "status": "pending", "mask_video_url": None}},
    {"code": 0, "message": "success", "data": [{"model_id": "eva_a0008", "name": "Eva", "gender": "female"}]},
    {"code": 1009, "message": "too many requests", "data": None},
    {"code": "10001", "message": "file not found"},
]
CALLS = {
    "list": (wire.character_list(), list),
    "get": (wire.video_get("v1"), Video),
    "videos": (wire.video_list(), list),
    "generate": (wire.video_generate(JOB), str),
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.sampled_from([0, "0", 0.0, False, -1, 10**30, "", "\ud800", "null", 1009, "1009", "finished", "error", CANARY]),
)
JSON = st.recursive(ODD, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
HEADER = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=30),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["Tue, 14 Nov 2023 22:13:20 GMT", "1700000030", "1700000030000", "5, 99", "1e400", "nan", "-0", "\uff19"]
    ),
)
HEADERS = st.fixed_dictionaries(
    {}, optional={"date": HEADER} | {f"x-ratelimit-{name}": HEADER for name in ("total", "left", "reset")}
)
STATUS = st.one_of(st.sampled_from([200, 200, 200, 429, 400, 401, 404, 409, 500, 502, 302]), st.integers(100, 999))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A seed with a value changed, then perhaps some of its bytes; or anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    envelope = json.loads(json.dumps(draw(st.sampled_from(SEEDS))))
    place = envelope
    if isinstance(envelope.get("data"), dict) and draw(st.booleans()):
        place = envelope["data"]
    place[draw(st.sampled_from([*place, "code", "data", "extra"]))] = draw(JSON)
    body = bytearray(json.dumps(envelope, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


@pytest.mark.parametrize("name", CALLS)
def test_every_reply_means_something(name) -> None:
    call, kind = CALLS[name]

    @EXACTLY
    @given(status=STATUS, headers=HEADERS, body=bodies())
    def judges(status: int, headers: dict[str, str], body: bytes) -> None:
        reply = Response(status, headers, body.replace(CANARY.encode(), b"[token]"))
        try:
            value = classify(call, reply)
        except a2v.A2VError as error:
            check(error)
            return
        if isinstance(value, Retry):
            check(value.error)
            assert not call.job or isinstance(value.error, a2v.RateLimitError)
        else:
            assert isinstance(value, kind)
            assert 200 <= status < 300
            assert repr(value).encode(errors="backslashreplace")
            for each in value if isinstance(value, list) else [value]:
                assert isinstance(each, str | Character | Video)

    judges()


@EXACTLY
@given(exchanges=st.lists(st.tuples(HEADERS, st.booleans(), st.floats(0, 200)), min_size=1, max_size=8))
def test_no_header_stops_the_budget(exchanges: list[tuple[dict[str, str], bool, float]]) -> None:
    """Whatever a server says of its limit: every kind of request is sent again within five minutes."""
    budget, now = RateLimiter(30, jitter=lambda: 0.5), 0.0
    for headers, refused, later in exchanges:
        now += later
        delay = max(budget.delay(now, kind) for kind in RequestKind)
        assert 0 <= delay <= 300
        now += delay
        reservation = budget.acquire(now)
        if refused:
            budget.throttled(reservation, now, headers)
        else:
            budget.release(reservation, now, headers)


def mutated(dice: random.Random, said: bytes) -> bytes:
    """A whole reply with some of its bytes gone, doubled or replaced."""
    body = bytearray(said)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at = dice.randrange(len(body) + 1)
        piece = dice.choice(
            [b"", b"\r\n", b"\x00", b"\xff", b":", b" ", b"-", b"9" * 20, bytes(body[at : at + 9]), dice.randbytes(3)]
        )
        body[at : at + dice.choice([0, 0, 1, 4])] = piece
    return bytes(body)


@pytest.mark.anyio
async def test_no_bytes_on_the_wire_break_the_client(port: Port, anyio_backend_name: str) -> None:
    """A tenth of the cases, for each takes connections: a value or an error of a2v, and one POST for one ``generate``."""
    dice = random.Random(f"{anyio_backend_name} 1")
    body = json.dumps({"code": 0, "message": "success", "data": {"video_id": "v1", "status": "pending"}}).encode()
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Ratelimit-Total: 100000\r\nX-Ratelimit-Left: 9\r\n"
        b"X-Ratelimit-Reset: 0\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nContent-Length: %d\r\n\r\n" % len(body)
    )

    # In a few cases, chance need not bring each kind of error.
    fixed = [b"", b"", head + b"?" * len(body), head + b"?" * len(body)]

    async def behave(conn: Connection) -> None:
        await conn.request()
        await conn.send(fixed.pop() if fixed else mutated(dice, head + body))

    async def meet(number: int) -> None:
        # A client of its own for each: one that is told to send no more would wait for a minute.
        async with a2v.AsyncA2V(CANARY, base_url=port.url, rate_limit=None, max_retries=0, timeout=10) as client:
            try:
                if number % 2:
                    await client.videos.generate(model_id=JOB.model_id, audio_url=JOB.audio_url)
                else:
                    await client.videos.get("v1")
            except a2v.A2VError as error:
                kinds.add(type(error))
                check(error)

    kinds: set[type[a2v.A2VError]] = set()
    port.behave = behave
    for number in range(len(fixed)):
        await meet(number)
    for start in range(0, CASES // 20, 10):
        async with anyio.create_task_group() as group:
            for number in range(start, start + 10):
                group.start_soon(meet, number)
    assert len(port.submitted) <= CASES // 40 + 5
    assert {a2v.SubmissionUnknownError, a2v.TransportError, a2v.ProtocolError} <= kinds
    await port.emptied()
