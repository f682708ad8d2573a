"""The scriptable service of the test kit.

``Account`` decides what the API would do. ``Service`` adds what a test needs: rules that change the response to certain calls
(``reply``, ``fail``, …), a record of the requests, and a clock. ``Transport`` and ``Server`` carry requests to
``Service.handle``.

A rule ignores its first ``nth - 1`` calls, and then applies to ``times`` calls. A call counts for every rule that still ignores
calls, and the earliest of the others answers it. Rules for failing renders work in the same way.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Generic, TypeVar, get_args
from urllib.parse import parse_qs, urlsplit

import anyio
import attrs
import httpx
from anyio.lowlevel import RunVar
from attrs import define, field

from a2v._core import wire
from a2v._core.captions import Cue, to_vtt
from a2v._values import arguments
from a2v._values.models import Avatar, Character, Pose, Speech, Video, VideoStatus, Voice
from a2v.errors import InvalidArgumentError, ProtocolError
from a2v.testing._account import Account, Answer, Render
from a2v.testing._server import LoopbackServer
from a2v.testing._transport import Transport
from a2v.testing._values import Call, CallName, Reply, Submission, Synthesis

T = TypeVar("T")

Script = Callable[[Call], Reply | Awaitable[Reply | None] | None]
"""A function that answers a call; ``None``: the default reply."""
_DefaultReply = Callable[[], Reply]
_Effect = Callable[[Call, _DefaultReply], Awaitable[Reply]]

_CALLS: tuple[str, ...] = get_args(CallName)


@define
class _Rule(Generic[T]):
    """Applies an effect to ``times`` calls or renders, after ignoring ``skip`` of them."""

    skip: int
    times: float
    effect: T


def _rule(effect: T, nth: int, times: int | None) -> _Rule[T]:
    arguments.integer("nth", nth, minimum=1)
    if times is not None:
        arguments.integer("times", times, minimum=1)
    return _Rule(nth - 1, math.inf if times is None else times, effect)


def _match(rules: list[_Rule[T]]) -> T | None:
    """Return the effect on this call or render, and count it for all rules."""
    matching: _Rule[T] | None = None
    for rule in rules:
        if rule.skip:
            rule.skip -= 1
        elif matching is None:
            matching = rule
    if matching is None:
        return None
    matching.times -= 1
    if not matching.times:
        rules.remove(matching)
    return matching.effect


class Server(LoopbackServer):
    """A service that listens on 127.0.0.1 while a ``with`` block runs, in a thread of its own.

    Args:
        service: The service.
        port: The port; 0, the default, chooses a free one.

    Attributes:
        base_url: The server's URL, while the block runs.
        token: An accepted token.
        service: The service: script it, and check what it received.
    """

    def __init__(self, service: Service, port: int = 0) -> None:
        super().__init__(service, port)
        self.service: Service = service


@define(eq=False, repr=False, kw_only=True, slots=False)
class Service(Account):
    """A scriptable audio-to-video service, for the tests of code that uses a2v. Nothing is rendered, and nothing costs money.

    Use it as a transport, or as a server on this machine, and check afterwards what it received:

        service = Service(render_seconds=900)
        async with a2v.AsyncA2V("token", transport=service.transport()) as client:
            ...  # the code under test
        assert [submission.model_id for submission in service.submissions] == ["eva_a0008"]

    It measures time with ``anyio.current_time``, so hours take no real time in virtual time (`run_in_virtual_time`). The settings
    are attributes too, and may be changed at any time.

    Failures are scripted in advance with `fail`, `refuse`, `reply`, `lose_reply`, `hang`, `delay`, `unreachable` and `break_off`.
    Each applies to the ``nth`` such call from now on (1, the default: the next one) and to ``times`` consecutive ones (1 by
    default; ``None``: all from there on). If several could apply to a call, the one that was added first does, and the next one
    applies to a later call.

    Args:
        render_seconds: Duration of a render, 0 by default: the first poll finds the video finished. A function gets the
            `Submission` and returns the seconds.
        pending_seconds: Seconds that a video is pending before that, 0 by default.
        poll_statuses: The statuses that successive polls of a video return, regardless of time; the last one is repeated. For tests
            in real time: ``poll_statuses=["pending", "in_progressing", "finished"]``. ``None``: the status follows from
            ``pending_seconds`` and ``render_seconds``.
        renderers: The number of videos rendered at a time; ``None``: no limit.
        statuses: Whether responses have a ``status``; the first revision of the service had none.
        lists_videos: Whether ``video.list`` exists; the first revision of the service had none.
        characters: The characters. ``None``: Eva (``eva_a0008``) is listed, and every ``model_id`` is accepted.
        avatars: The avatars of the service's later revision. ``None``: the server has neither avatars nor their calls.
        voices: The voices of the service's later revision. ``None``: the server has neither voices nor their calls. Any text of up
            to 500 characters can be synthesized.
        limit: The rate limit: a `FixedWindow`, a `SlidingWindow` or a `TokenBucket`. ``None``: no limit.
        quota: The number of calls that the account may make in total; ``None``: no limit.
        token: The only accepted token; ``None``: all are accepted.
        content: The content of each video file; ``None``: ``b"video of v1"`` for ``v1``.
        url_seconds: Seconds until the URL of a file expires; ``None``: never.
        latency: Seconds from a request to its reply, half of them in each direction; 0 by default.
        error_rate: The share of calls that fail with HTTP 500, from 0.0 (the default) to 1.0. Submissions and syntheses never do.
        clock_skew: Seconds by which the service's clock is ahead.
        random: The random generator that selects the calls for ``error_rate``; by default, it has a fixed seed.

    Raises:
        InvalidArgumentError: A setting is invalid.

    Attributes:
        files_url: The base URL of the files; a server sets it to its own URL.
        epoch: The Unix time of the first request, for the headers of replies. It is the same in each run; a server uses the
            real time.
    """

    _calls: list[Call] = field(factory=list, init=False)
    _effects: dict[str, list[_Rule[_Effect]]] = field(factory=dict, init=False)
    _failures: list[_Rule[str]] = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    # The service's time 0 by the clock of the running event loop, and the latest time that `now` returned.
    _time_zero: RunVar[float] = field(factory=lambda: RunVar("time zero"), init=False)
    _latest: float = field(default=0.0, init=False)

    def __repr__(self) -> str:
        return f"<Service {len(self._submissions)} submissions, {len(self._calls)} calls>"

    # -- use -----------------------------------------------------------------------------------------------------------

    def transport(self) -> Transport:
        """Return a transport for ``AsyncA2V(token, transport=service.transport())`` or ``A2V(…)``; one for each client."""
        return Transport(self)

    def server(self, port: int = 0) -> Server:
        """Return a server on 127.0.0.1, to be used in a ``with`` statement. It runs in a thread, in real time.

        Args:
            port: The port; 0, the default, chooses a free one.
        """
        return Server(self, port)

    # -- recorded requests ------------------------------------------------------------------------------------------------

    @property
    def submissions(self) -> tuple[Submission, ...]:
        """The accepted submissions, in order: those that would have cost money."""
        return tuple(self._submissions)

    @property
    def syntheses(self) -> tuple[Synthesis, ...]:
        """The texts that were synthesized, in order: those that may have cost money."""
        return tuple(self._syntheses)

    @property
    def calls(self) -> tuple[Call, ...]:
        """All requests, in order, including rejected ones and those without a reply."""
        return tuple(self._calls)

    @property
    def polls(self) -> tuple[Call, ...]:
        """The polls: ``video.get`` and ``video.list``."""
        return tuple(call for call in self._calls if call.name in ("video.get", "video.list"))

    def seen(self, name: CallName) -> tuple[Call, ...]:
        """Return the requests of one call, such as ``"character.list"``, or ``"file"`` for downloads."""
        self._check_name(name)
        return tuple(call for call in self._calls if call.name == name)

    # -- scripting ----------------------------------------------------------------------------------------------------

    def add_video(self, video_id: str, *poll_statuses: str, message: str = "", with_mask: bool = False) -> None:
        """Add a video that was submitted earlier, possibly by another program.

        Args:
            video_id: Its id.
            poll_statuses: The statuses that successive polls return; the last one is repeated. Default: ``"finished"``.
            message: The server's message once the video has ended: the reason of a failure, or a warning.
            with_mask: Whether the finished video has a mask.

        Raises:
            InvalidArgumentError: The id is in use, or an argument is invalid.
        """
        arguments.identifier("video_id", video_id, "a video")
        arguments.boolean("with_mask", with_mask)
        for text in (*poll_statuses, message):
            arguments.text("poll_statuses and message", text)
        if video_id in self._renders:
            raise InvalidArgumentError(f"there is a video {video_id!r} already")
        submission = Submission(at=self._latest, video_id=video_id, with_mask=with_mask)
        self._renders[video_id] = Render(submission, 0.0, poll_statuses or ("finished",), message)

    def fail(self, message: str = "", *, nth: int = 1, times: int | None = 1) -> None:
        """Make a render fail instead of finish.

        Args:
            message: The reason in the response of ``video.get``.
            nth: The number of the first accepted submission it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """
        self._failures.append(_rule(arguments.text("message", message), nth, times))

    def refuse(
        self,
        name: CallName,
        status: int = 503,
        message: str = "rejected by the test",
        *,
        code: int | None = None,
        nth: int = 1,
        times: int | None = 1,
    ) -> None:
        """Refuse a call: a refused submission makes no video.

        Args:
            name: The call.
            status: The HTTP status.
            message: The reason.
            code: The code in the envelope; ``None``: that of the status.
            nth: The number of the first such call it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """
        self.reply(name, Reply.refusal(status, message, code), nth=nth, times=times)

    def reply(self, name: CallName, answer: Reply | Exception | Script, *, nth: int = 1, times: int | None = 1) -> None:
        """Answer a call with any reply. The call is not executed, unless ``answer`` is a function that asks for the default reply.

        Args:
            name: The call.
            answer: A reply; an exception for the transport to raise, such as ``httpx.ReadTimeout("")`` (a server closes the
                connection instead); or a function, async or not, that gets the `Call` and returns a reply (`default_reply` returns
                the default one), or ``None`` for the default behaviour.
            nth: The number of the first such call it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """
        if not isinstance(answer, Reply | Exception) and not callable(answer):
            raise InvalidArgumentError(
                f"answer must be a Reply, an exception or a function, got {arguments.short_repr(answer)}"
            )

        async def effect(call: Call, default: _DefaultReply) -> Reply:
            if isinstance(answer, Exception):
                raise answer
            reply = answer if isinstance(answer, Reply) else answer(call)
            return (await reply if inspect.isawaitable(reply) else reply) or default()

        self._add_rule(name, effect, nth, times)

    def lose_reply(self, name: CallName = "video.generate", *, nth: int = 1, times: int | None = 1) -> None:
        """Execute a call, and close the connection before the reply.

        For a submission the client cannot know the outcome: it raises ``SubmissionUnknownError``, and `submissions` contains the
        video.

        Args:
            name: The call.
            nth: The number of the first such call it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """

        async def effect(_: Call, default: _DefaultReply) -> Reply:
            default()
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

        self._add_rule(name, effect, nth, times)

    def hang(self, name: CallName = "video.generate", *, nth: int = 1, times: int | None = 1) -> None:
        """Execute a call, and never reply.

        Args:
            name: The call.
            nth: The number of the first such call it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """
        self.delay(name, math.inf, nth=nth, times=times)

    def delay(self, name: CallName, seconds: float, *, nth: int = 1, times: int | None = 1) -> None:
        """Execute a call, and delay the reply.

        Args:
            name: The call.
            seconds: The delay.
            nth: The number of the first such call it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """
        if not arguments.is_number(seconds) or seconds < 0:
            raise InvalidArgumentError(f"seconds must be a number, 0 or more, got {arguments.short_repr(seconds)}")

        async def effect(_: Call, default: _DefaultReply) -> Reply:
            reply = default()
            await anyio.sleep(seconds)
            return reply

        self._add_rule(name, effect, nth, times)

    def unreachable(self, name: CallName, *, nth: int = 1, times: int | None = 1) -> None:
        """Refuse the connection, so that the client knows that the call did not arrive.

        Only a transport can do this for a single call; a server closes the connection without executing it.

        Args:
            name: The call.
            nth: The number of the first such call it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """
        self.reply(name, httpx.ConnectError("All connection attempts failed"), nth=nth, times=times)

    def break_off(self, after: int = 0, *, nth: int = 1, times: int | None = 1) -> None:
        """Close the connection in the middle of a file. Files have an ``ETag`` and support ``Range``, so they can be resumed.

        Args:
            after: The number of bytes sent before that.
            nth: The number of the first download it applies to, from now on.
            times: To how many consecutive ones it applies; ``None``: all.
        """
        arguments.integer("after", after, minimum=0)

        async def effect(_: Call, default: _DefaultReply) -> Reply:
            return attrs.evolve(default(), breaks_after=after)

        self._add_rule("file", effect, nth, times)

    def recover(self, name: CallName | None = None) -> None:
        """Remove everything that was scripted for a call.

        Args:
            name: The call; ``None``: all calls, and the failures of renders.
        """
        if name is None:
            self._effects.clear()
            self._failures.clear()
        else:
            self._check_name(name)
            self._effects.pop(name, None)

    def _add_rule(self, name: str, effect: _Effect, nth: int, times: int | None) -> None:
        self._check_name(name)
        self._effects.setdefault(name, []).append(_rule(effect, nth, times))

    def _check_name(self, name: str) -> None:
        if name not in _CALLS:
            raise InvalidArgumentError(f"there is no call {name!r}, only {', '.join(_CALLS)}")

    # -- handling ------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the seconds since the first request; call it in an event loop. In a new loop, time continues from the last value."""
        try:
            start = self._time_zero.get()
        except LookupError:
            start = anyio.current_time() - self._latest
            self._time_zero.set(start)
        self._latest = anyio.current_time() - start
        return self._latest

    async def handle(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer a request that arrives now; called by transports and servers.

        Raises:
            Exception: A scripted one: the connection is to be closed.
        """
        call = self._read(method, url, headers, body)
        with self._lock:
            index = len(self._calls)
            self._calls.append(call)
        reply = await self._answer(call)
        self._calls[index] = attrs.evolve(self._calls[index], status=reply.status)
        return reply

    def _read(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Call:
        parts = urlsplit(url)
        last = parts.path.rpartition("/")[2]
        if "/v1/a2v/" in parts.path or "/v1/tts/" in parts.path:
            name, video_id = last, _query(url, "video_id")
        else:
            name, video_id = "file", re.sub(r"(-mask)?\.\w+$", "", last)
        return Call(at=self.now(), name=name, video_id=video_id, method=method, url=url, headers=headers, body=body)

    async def _answer(self, call: Call) -> Reply:
        with self._lock:
            headers, refusal = self._authorize(call)
            if refusal:
                return attrs.evolve(self._to_reply(refusal), headers=headers)
            effect = _match(self._effects.get(call.name, []))
        default = partial(self.default_reply, call)
        reply = await effect(call, default) if effect else default()
        return attrs.evolve(reply, headers=headers | dict(reply.headers))

    def _authorize(self, call: Call) -> tuple[dict[str, str], Answer | None]:
        if call.name == "file":
            return {}, None
        sent = call.headers.get("authorization", "")
        if not sent or (self.token is not None and sent not in (self.token, f"Bearer {self.token}")):
            return {}, Answer(401, message="the token is missing or wrong")
        return self.admit(call.at)

    def default_reply(self, call: Call) -> Reply:
        """Execute a call and return the default reply; for functions passed to `reply`."""
        now = self.now()
        with self._lock:
            if call.name == "file":
                return self._file(call, now)
            if call.name == "voice.generate":
                return self._synthesize(call, now)
            if call.name != "video.generate":
                resource_id = call.video_id or _query(call.url, "avatar_id")
                return self._to_reply(self.answer(now, call.name, resource_id))
            return self._submit(call, now)

    def _synthesize(self, call: Call, now: float) -> Reply:
        if call.method != "POST":
            return Reply.refusal(405, "voice.generate is a POST")
        try:
            speech = wire.read_speech(call.body)
        except (ValueError, ProtocolError) as error:
            return Reply.refusal(400, str(error))
        return self._to_reply(self.answer(now, call.name, speech=speech))

    def _submit(self, call: Call, now: float) -> Reply:
        if call.method != "POST":
            return Reply.refusal(405, "video.generate is a POST")
        try:
            job = wire.read_job(call.body)
        except (ValueError, ProtocolError) as error:
            return Reply.refusal(400, str(error))
        answer = self.answer(now, call.name, job=job)
        if isinstance(answer.value, str):
            # Searched from the end, because it has just arrived.
            index = next((n for n in reversed(range(len(self._calls))) if self._calls[n] is call), None)
            if index is not None:
                self._calls[index] = attrs.evolve(call, video_id=answer.value)
        return self._to_reply(answer)

    def _begin(self, render: Render, now: float) -> None:
        message = _match(self._failures)
        render.failed, render.message = message is not None, message or ""
        super()._begin(render, now)

    def _to_reply(self, answer: Answer) -> Reply:
        if answer.status != 200:
            return Reply.refusal(answer.status, answer.message, answer.code)
        value = answer.value
        return Reply.success(
            [self._to_json(each) for each in value] if isinstance(value, list) else self._to_json(value)
        )

    def _to_json(self, value: str | Video | Speech | Character | Avatar | Pose | Voice | None) -> object:  # noqa: PLR0911  # one for each
        if isinstance(value, Video):
            data = wire.video_data(value, value.raw["message"])
            return _without(data, "status") if not self.statuses else data | {"status": value.raw["status"]}
        if isinstance(value, Character):
            return wire.character_data(value)
        if isinstance(value, Avatar):
            return wire.avatar_data(value)
        if isinstance(value, Pose):
            return wire.pose_data(value)
        if isinstance(value, Voice):
            return wire.voice_data(value)
        if isinstance(value, Speech):
            return wire.speech_data(value)
        return {"video_id": value, "status": VideoStatus.PENDING.value} if self.statuses else {"video_id": value}

    # -- files --------------------------------------------------------------------------------------------------------

    def _file(self, call: Call, now: float) -> Reply:
        expires = _query(call.url, "expires")
        if expires is not None and now > float(expires):
            return Reply(403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        if found := re.fullmatch(r"speech([0-9]+)", call.video_id or ""):
            if not 0 < int(found[1]) <= len(self._syntheses):
                return Reply(404, "<Error><Code>NoSuchKey</Code></Error>")
            return _file_reply(f"recording of {call.video_id}".encode(), call, "audio/wav")
        render = self._renders.get(call.video_id or "")
        if render is None or not render.has_file(now):
            return Reply(404, "<Error><Code>NoSuchKey</Code></Error>")
        name, _, extension = urlsplit(call.url).path.rpartition("/")[2].rpartition(".")
        if extension == "vtt":
            return _file_reply(to_vtt([Cue(0.0, 1.0, [f"captions of {name}"])]).encode(), call, "text/vtt")
        return _file_reply(self.content if self.content is not None else f"video of {name}".encode(), call)


def _file_reply(content: bytes, call: Call, content_type: str = "video/mp4") -> Reply:
    """Return a file, or the requested range of it."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": etag, "accept-ranges": "bytes", "content-type": content_type}
    byte_range = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    if not byte_range or call.headers.get("if-range", etag) != etag:
        return Reply(200, content, headers)
    first, last = int(byte_range[1]), min(int(byte_range[2] or len(content)), len(content) - 1)
    if first > last:
        return Reply(416, b"", headers | {"content-range": f"bytes */{len(content)}"})
    return Reply(206, content[first : last + 1], headers | {"content-range": f"bytes {first}-{last}/{len(content)}"})


def _query(url: str, name: str) -> str | None:
    return parse_qs(urlsplit(url).query).get(name, [None])[0]


def _without(data: Mapping[str, str | None], name: str) -> dict[str, str | None]:
    return {key: value for key, value in data.items() if key != name}
