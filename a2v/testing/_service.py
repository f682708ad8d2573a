"""The service that people use in their tests: it does what the API does, unless it is told otherwise."""

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
from a2v._values import arguments
from a2v._values.models import Avatar, Character, Pose, Video, VideoStatus
from a2v.errors import InvalidArgumentError, ProtocolError
from a2v.testing._account import Account, Answer, Render
from a2v.testing._server import Server
from a2v.testing._transport import Transport
from a2v.testing._values import Call, CallName, Reply, Submit

T = TypeVar("T")

Script = Callable[[Call], Reply | Awaitable[Reply | None] | None]
"""A function that answers a call; ``None``: as if nothing had been told."""
_AsUsual = Callable[[], Reply]
_Effect = Callable[[Call, _AsUsual], Awaitable[Reply]]

_CALLS: tuple[str, ...] = get_args(CallName)


@define
class _Told(Generic[T]):
    """Something that concerns ``times`` cases after the next ``skip`` ones."""

    skip: int
    times: float
    what: T


def _told(what: T, nth: int, times: int | None) -> _Told[T]:
    arguments.integer("nth", nth, minimum=1)
    if times is not None:
        arguments.integer("times", times, minimum=1)
    return _Told(nth - 1, math.inf if times is None else times, what)


def _due(told: list[_Told[T]]) -> T | None:
    """What concerns the case that has just come."""
    due: _Told[T] | None = None
    for each in told:
        if each.skip:
            each.skip -= 1
        elif due is None:
            due = each
    if due is None:
        return None
    due.times -= 1
    if not due.times:
        told.remove(due)
    return due.what


@define(eq=False, repr=False, kw_only=True, slots=False)
class Service(Account):
    """A scriptable audio-to-video service, for the tests of code that uses a2v. Nothing is rendered and nothing is paid.

    Use it as a transport, or as a server on this machine; it tells afterwards what it saw:

        service = Service(render_seconds=900)
        async with a2v.AsyncA2V("token", transport=service.transport()) as client:
            ...  # what is to be tested
        assert [submit.model_id for submit in service.submits] == ["eva_a0008"]

    It measures time with ``anyio.current_time`` alone, so in virtual time (`run_in_virtual_time`) hours take no time. The
    settings are attributes too, and may be changed at any moment.

    What shall go wrong is told in advance, with ``nth`` and ``times`` everywhere: ``nth=1``, the default, is the next such
    call from now on, and ``times`` tells how many in a row it concerns: 1 by default, ``None`` for all from there on. What
    concerns the same call comes one after another, in the order in which it was told.

    Args:
        render_seconds: How long a render takes, 0 by default: the first look at a video finds it finished. A function gets
            the `Submit` and returns the seconds.
        pending_seconds: How long a video waits in line before that, 0 by default.
        looks: The statuses that the looks at a video show one after another, whatever the time is; the last one stays. For
            tests in real time: ``looks=["pending", "in_progressing", "finished"]``. ``None``: as the seconds tell.
        renderers: How many videos are rendered at a time; ``None``: all.
        statuses: Whether replies have a ``status``; the first revision of the service had none.
        lists_videos: Whether there is a ``video.list``; the first revision of the service had none.
        characters: Who can speak. ``None``: Eva (``eva_a0008``) is listed, and every ``model_id`` is accepted.
        avatars: The avatars of the service's later revision. ``None``: this server has none, nor their calls.
        limit: How requests are limited: a `FixedWindow`, a `SlidingWindow` or a `TokenBucket`. ``None``: not at all.
        quota: How many calls the account has in all; ``None``: as many as it likes.
        token: The one token that is accepted; ``None``: any.
        content: What is in the file of each video; ``None``: ``b"video of v1"`` in that of ``v1``.
        url_seconds: How long the URL that a look shows can be fetched from; ``None``: for ever.
        latency: Seconds from a request to its reply, half of them on each way; 0 by default.
        error_rate: The share of repeatable calls that are answered with HTTP 500, from 0.0 (the default) to 1.0.
        clock_skew: How many seconds the service's clock is ahead.
        random: Draws what ``error_rate`` hits; the same in each run by default.

    Raises:
        InvalidArgumentError: A setting cannot be right.

    Attributes:
        files_url: Where the files seem to be; a server sets it to its own URL.
        epoch: The Unix time of the first request, as far as replies tell the time. It is the same in each run; a server
            tells the real time.
    """

    _calls: list[Call] = field(factory=list, init=False)
    _effects: dict[str, list[_Told[_Effect]]] = field(factory=dict, init=False)
    _failures: list[_Told[str]] = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    # When, by the clock of the running event loop, the service's time began; and what its time was last.
    _began: RunVar[float] = field(factory=lambda: RunVar("began"), init=False)
    _latest: float = field(default=0.0, init=False)

    def __repr__(self) -> str:
        return f"<Service {len(self._submits)} submits, {len(self._calls)} calls>"

    # -- being used ---------------------------------------------------------------------------------------------------

    def transport(self) -> Transport:
        """For ``AsyncA2V(token, transport=service.transport())`` or ``A2V(…)``; each client gets one of its own."""
        return Transport(self)

    def server(self, port: int = 0) -> Server:
        """A server on 127.0.0.1, for the length of a ``with`` block. It runs in a thread, in real time.

        Args:
            port: Where to listen; 0 takes a free port.
        """
        return Server(self, port)

    # -- what it saw --------------------------------------------------------------------------------------------------

    @property
    def submits(self) -> tuple[Submit, ...]:
        """The submissions that were accepted, in order: what would have been paid for."""
        return tuple(self._submits)

    @property
    def calls(self) -> tuple[Call, ...]:
        """All requests that arrived, in order: refused ones and those without a reply too."""
        return tuple(self._calls)

    @property
    def polls(self) -> tuple[Call, ...]:
        """The looks at videos that arrived: ``video.get`` and ``video.list``."""
        return tuple(call for call in self._calls if call.name in ("video.get", "video.list"))

    def seen(self, name: CallName) -> tuple[Call, ...]:
        """The requests of one call that arrived, such as ``"character.list"``, or ``"file"`` for what was fetched."""
        self._check_name(name)
        return tuple(call for call in self._calls if call.name == name)

    # -- what shall happen --------------------------------------------------------------------------------------------

    def add_video(self, video_id: str, *looks: str, message: str = "", with_mask: bool = False) -> None:
        """Let there be a video that was submitted earlier, by whomever.

        Args:
            video_id: Its id.
            looks: The statuses that looks show one after another; the last one stays. None given: ``"finished"``.
            message: Why it failed, if it does.
            with_mask: Whether it has a mask once it is finished.

        Raises:
            InvalidArgumentError: There is a video of this id, or an argument cannot be right.
        """
        arguments.identifier("video_id", video_id, "a video")
        for text in (*looks, message):
            arguments.text("looks and message", text)
        if video_id in self._renders:
            raise InvalidArgumentError(f"there is a video {video_id!r} already")
        submit = Submit(at=self._latest, video_id=video_id, with_mask=with_mask)
        self._renders[video_id] = Render(submit, 0.0, looks or ("finished",), message)

    def fail(self, message: str = "", *, nth: int = 1, times: int | None = 1) -> None:
        """Let a render end in ``error``, when it would have been finished.

        Args:
            message: Why, as ``video.get`` shows it.
            nth: Which of the submissions that will be accepted, counted from now.
            times: How many in a row; ``None``: all from there on.
        """
        self._failures.append(_told(arguments.text("message", message), nth, times))

    def refuse(
        self,
        name: CallName,
        status: int = 503,
        message: str = "refused by the test",
        *,
        code: int | None = None,
        nth: int = 1,
        times: int | None = 1,
    ) -> None:
        """Answer a call with an error. Nothing is done: a submission that is refused makes no video.

        Args:
            name: Which call.
            status: The HTTP status.
            message: Why.
            code: The code in the envelope; ``None``: that of the status.
            nth: Which of these calls, counted from now.
            times: How many in a row; ``None``: all from there on.
        """
        self.reply(name, Reply.refusal(status, message, code), nth=nth, times=times)

    def reply(self, name: CallName, answer: Reply | Exception | Script, *, nth: int = 1, times: int | None = 1) -> None:
        """Answer a call with whatever a test wants. Nothing is done.

        Args:
            name: Which call.
            answer: A reply; an exception for the transport to raise, such as ``httpx.ReadTimeout("")`` (a server breaks the
                connection in its stead); or a function, asynchronous or not, that gets the `Call` and returns a reply
                (`as_usual` makes the usual one), or ``None`` if the service shall do what it would have done.
            nth: Which of these calls, counted from now.
            times: How many in a row; ``None``: all from there on.
        """
        if not isinstance(answer, Reply | Exception) and not callable(answer):
            raise InvalidArgumentError(
                f"answer must be a Reply, an exception or a function, got {arguments.short_repr(answer)}"
            )

        async def effect(call: Call, as_usual: _AsUsual) -> Reply:
            if isinstance(answer, Exception):
                raise answer
            said = answer if isinstance(answer, Reply) else answer(call)
            return (await said if inspect.isawaitable(said) else said) or as_usual()

        self._tell(name, effect, nth, times)

    def lose_reply(self, name: CallName = "video.generate", *, nth: int = 1, times: int | None = 1) -> None:
        """Do what a call asks for, and break the connection before the reply.

        For a submission this is the case in which nobody can know: the client raises ``SubmissionUnknownError``, and
        `submits` has the video that it knows nothing of.

        Args:
            name: Which call.
            nth: Which of these calls, counted from now.
            times: How many in a row; ``None``: all from there on.
        """

        async def effect(_: Call, as_usual: _AsUsual) -> Reply:
            as_usual()
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

        self._tell(name, effect, nth, times)

    def hang(self, name: CallName = "video.generate", *, nth: int = 1, times: int | None = 1) -> None:
        """Do what a call asks for, and then say nothing until the client gives up.

        Args:
            name: Which call.
            nth: Which of these calls, counted from now.
            times: How many in a row; ``None``: all from there on.
        """
        self.delay(name, math.inf, nth=nth, times=times)

    def delay(self, name: CallName, seconds: float, *, nth: int = 1, times: int | None = 1) -> None:
        """Do what a call asks for, and reply so many seconds later.

        Args:
            name: Which call.
            seconds: How much later.
            nth: Which of these calls, counted from now.
            times: How many in a row; ``None``: all from there on.
        """
        if not arguments.is_number(seconds) or seconds < 0:
            raise InvalidArgumentError(f"seconds must be a number, 0 or more, got {arguments.short_repr(seconds)}")

        async def effect(_: Call, as_usual: _AsUsual) -> Reply:
            reply = as_usual()
            await anyio.sleep(seconds)
            return reply

        self._tell(name, effect, nth, times)

    def unreachable(self, name: CallName, *, nth: int = 1, times: int | None = 1) -> None:
        """Let no connection come about, so that the client knows that nothing arrived.

        A transport can do this for one call; a server breaks the connection instead, having done nothing.

        Args:
            name: Which call.
            nth: Which of these calls, counted from now.
            times: How many in a row; ``None``: all from there on.
        """
        self.reply(name, httpx.ConnectError("All connection attempts failed"), nth=nth, times=times)

    def break_off(self, after: int = 0, *, nth: int = 1, times: int | None = 1) -> None:
        """Break the connection in the middle of a file. It can be resumed, as files have an ``ETag`` and know ``Range``.

        Args:
            after: After how many bytes.
            nth: Which of the requests for a file, counted from now.
            times: How many in a row; ``None``: all from there on.
        """
        arguments.integer("after", after, minimum=0)

        async def effect(_: Call, as_usual: _AsUsual) -> Reply:
            return attrs.evolve(as_usual(), breaks_after=after)

        self._tell("file", effect, nth, times)

    def recover(self, name: CallName | None = None) -> None:
        """Forget what was told about a call and has not happened yet.

        Args:
            name: Which call; ``None``: all, and the renders that were to fail.
        """
        if name is None:
            self._effects.clear()
            self._failures.clear()
        else:
            self._check_name(name)
            self._effects.pop(name, None)

    def _tell(self, name: str, effect: _Effect, nth: int, times: int | None) -> None:
        self._check_name(name)
        self._effects.setdefault(name, []).append(_told(effect, nth, times))

    def _check_name(self, name: str) -> None:
        if name not in _CALLS:
            raise InvalidArgumentError(f"there is no call {name!r}, only {', '.join(_CALLS)}")

    # -- what happens -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the first request, for code within an event loop; the next loop goes on where the last one was."""
        try:
            began = self._began.get()
        except LookupError:
            began = anyio.current_time() - self._latest
            self._began.set(began)
        self._latest = anyio.current_time() - began
        return self._latest

    async def handle(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer a request that arrives now; for transports and servers.

        Raises:
            Exception: As told; the connection shall break.
        """
        call = self._read(method, url, headers, body)
        with self._lock:
            place = len(self._calls)
            self._calls.append(call)
        reply = await self._answered(call)
        self._calls[place] = attrs.evolve(self._calls[place], status=reply.status)
        return reply

    def _read(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Call:
        parts = urlsplit(url)
        last = parts.path.rpartition("/")[2]
        if "/v1/a2v/" in parts.path:
            name, video_id = last, _query(url, "video_id")
        else:
            name, video_id = "file", re.sub(r"(-mask)?\.\w+$", "", last)
        return Call(at=self.now(), name=name, video_id=video_id, method=method, url=url, headers=headers, body=body)

    async def _answered(self, call: Call) -> Reply:
        with self._lock:
            headers, refusal = self._let_in(call)
            if refusal:
                return attrs.evolve(self._shown(refusal), headers=headers)
            effect = _due(self._effects.get(call.name, []))
        as_usual = partial(self.as_usual, call)
        reply = await effect(call, as_usual) if effect else as_usual()
        return attrs.evolve(reply, headers=headers | dict(reply.headers))

    def _let_in(self, call: Call) -> tuple[dict[str, str], Answer | None]:
        if call.name == "file":
            return {}, None
        sent = call.headers.get("authorization", "")
        if not sent or (self.token is not None and sent not in (self.token, f"Bearer {self.token}")):
            return {}, Answer(401, message="the token is missing or wrong")
        return self.admit(call.at)

    def as_usual(self, call: Call) -> Reply:
        """Do what a call asks for, as if nothing had been told; for functions that are given to `reply`."""
        now = self.now()
        with self._lock:
            if call.name == "file":
                return self._file(call, now)
            if call.name != "video.generate":
                about = call.video_id or _query(call.url, "avatar_id")
                return self._shown(self.answer(now, call.name, about))
            return self._generated(call, now)

    def _generated(self, call: Call, now: float) -> Reply:
        if call.method != "POST":
            return Reply.refusal(405, "video.generate is a POST")
        try:
            job = wire.read_job(call.body)
        except (ValueError, ProtocolError) as error:
            return Reply.refusal(400, str(error))
        answer = self.answer(now, call.name, job=job)
        if isinstance(answer.value, str):
            # Among the last ones, for it has just come.
            place = next((n for n in reversed(range(len(self._calls))) if self._calls[n] is call), None)
            if place is not None:
                self._calls[place] = attrs.evolve(call, video_id=answer.value)
        return self._shown(answer)

    def _begin(self, render: Render, now: float) -> None:
        message = _due(self._failures)
        render.failed, render.message = message is not None, message or ""
        super()._begin(render, now)

    def _shown(self, answer: Answer) -> Reply:
        if answer.status != 200:
            return Reply.refusal(answer.status, answer.message, answer.code)
        value = answer.value
        return Reply.success([self._data(each) for each in value] if isinstance(value, list) else self._data(value))

    def _data(self, value: str | Video | Character | Avatar | Pose | None) -> object:
        if isinstance(value, Video):
            data = wire.video_data(value, value.raw["message"])
            return _without(data, "status") if not self.statuses else data | {"status": value.raw["status"]}
        if isinstance(value, Character):
            return wire.character_data(value)
        if isinstance(value, Avatar):
            return wire.avatar_data(value)
        if isinstance(value, Pose):
            return wire.pose_data(value)
        return {"video_id": value, "status": VideoStatus.PENDING.value} if self.statuses else {"video_id": value}

    # -- files --------------------------------------------------------------------------------------------------------

    def _file(self, call: Call, now: float) -> Reply:
        expires = _query(call.url, "expires")
        if expires is not None and now > float(expires):
            return Reply(403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        render = self._renders.get(call.video_id or "")
        if render is None or not render.has_file(now):
            return Reply(404, "<Error><Code>NoSuchKey</Code></Error>")
        name = urlsplit(call.url).path.rpartition("/")[2].rpartition(".")[0]
        return _part(self.content if self.content is not None else f"video of {name}".encode(), call)


def _part(content: bytes, call: Call) -> Reply:
    """A file, or the part of it that was asked for."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": etag, "accept-ranges": "bytes", "content-type": "video/mp4"}
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    if not span or call.headers.get("if-range", etag) != etag:
        return Reply(200, content, headers)
    first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
    if first > last:
        return Reply(416, b"", headers | {"content-range": f"bytes */{len(content)}"})
    return Reply(206, content[first : last + 1], headers | {"content-range": f"bytes {first}-{last}/{len(content)}"})


def _query(url: str, name: str) -> str | None:
    return parse_qs(urlsplit(url).query).get(name, [None])[0]


def _without(data: Mapping[str, str | None], name: str) -> dict[str, str | None]:
    return {key: value for key, value in data.items() if key != name}
