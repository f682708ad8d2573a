"""``a2v doctor``: what stands between somebody and a video, in plain words."""

from __future__ import annotations

import os
import platform
import re
import time
from email.utils import parsedate_to_datetime
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from a2v import A2VError, __version__
from a2v._async.requests.transport import Transport
from a2v._core import wire
from a2v._core.rate_limiter import reset_in
from a2v._core.responses import NoResponse, Retry, classify
from a2v._core.settings import HOSTED, Secret, resolve_base_url
from a2v._core.settings import resolve_token as check_token
from a2v.cli.printing import number
from a2v.cli.server import UsageError, read_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v import Character
    from a2v._core.wire import ApiRequest, Response

State = Literal["ok", "note", "problem"]

_TIMEOUT = 15.0
# What a pre-signed URL, or a token that ends, may not forgive.
_SKEW = 60.0


@frozen
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: ``"problem"`` if it stands in the way, ``"note"`` if it may one day.
        words: How it is, and what to do.
    """

    name: str
    state: State
    words: str


async def examine(base_url: str | None, token_file: str | None) -> list[Check]:
    """Look at everything. Nothing is submitted; the server gets one request, for its characters.

    Args:
        base_url: The server; that of A2V_BASE_URL if ``None``, and the hosted service if that is not set.
        token_file: Where the token is; in A2V_TOKEN if ``None``.
    """
    checks = [
        Check(
            "python",
            "ok",
            f"{platform.python_version()} on {platform.system()} {platform.machine()}, a2v {__version__}",
        ),
        *_extras(),
        *_ffmpeg(),
    ]
    token, about_token = _token(token_file)
    url, about_url = _base_url(base_url)
    checks += [about_token, about_url]
    return checks + (await _server(url, token) if url and token else [])


def _extras() -> Iterator[Check]:
    """Which of the extras are there, by what the package itself says that they need."""
    needs: dict[str, list[str]] = {}
    for requirement in metadata.requires("a2v") or []:
        if found := re.fullmatch(r"([\w.-]+)[^;]*;.*\bextra == [\"'](\w+)[\"'].*", requirement):
            needs.setdefault(found[2], []).append(found[1])
    needs.pop("all", None)
    for extra, packages in needs.items():
        missing = [package for package in packages if not _version(package)]
        versions = ", ".join(f"{package} {_version(package)}" for package in packages)
        words = f'not installed: pip install "a2v[{extra}]" (it lacks {", ".join(missing)})' if missing else versions
        yield Check(f"extra {extra}", "note" if missing else "ok", words)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _ffmpeg() -> Iterator[Check]:
    """The libraries that come with PyAV, which the local engine decodes and encodes with."""
    if not _version("av"):
        return
    try:
        av: Any = import_module("av")
        av.Codec("libx264", "w")
        av.Codec("aac", "w")
    except Exception as error:  # noqa: BLE001  # a broken library may say so in any way
        words = f"the local engine cannot encode: {str(error) or type(error).__name__}; reinstall it: pip install --force-reinstall av"
        yield Check("ffmpeg", "problem", words)
        return
    names = ("libavcodec", "libavformat", "libavutil")
    versions = ", ".join(f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in names)
    yield Check("ffmpeg", "ok", f"{versions}; encodes H.264 and AAC")


def _token(token_file: str | None) -> tuple[Secret | None, Check]:
    try:
        found = read_token(token_file)
        if found is None:
            return None, Check("token", "problem", "there is none: set A2V_TOKEN, or pass --token-file FILE")
        return check_token(Secret(found), Secret(None)), Check("token", "ok", f"found in {token_file or 'A2V_TOKEN'}")
    except (A2VError, UsageError) as error:
        return None, Check("token", "problem", str(error))


def _base_url(base_url: str | None) -> tuple[str | None, Check]:
    given = "--base-url" if base_url is not None else "A2V_BASE_URL"
    try:
        url = resolve_base_url(base_url, os.environ.get("A2V_BASE_URL"))
    except A2VError as error:
        return None, Check("base_url", "problem", f"{error}; it is that of {given}")
    return url, Check("base_url", "ok", f"{url} ({'the hosted service' if url == HOSTED else f'from {given}'})")


async def _server(url: str, token: Secret) -> list[Check]:
    transport, call = Transport(None), wire.character_list()
    began = time.monotonic()
    answer: wire.Response | NoResponse | None = None
    try:
        answer = await transport.exchange(url, token, call, _TIMEOUT)
    except A2VError as error:
        return [Check("server", "problem", f"cannot be asked: {error}")]
    finally:
        await transport.aclose()
    seconds = time.monotonic() - began
    if isinstance(answer, NoResponse):
        return [Check("server", "problem", f"cannot be reached: {answer.reason}")]
    # What a server that says no tells of its clock and of the budget may be the very reason.
    return [_judged(call, answer, seconds), *_clock(answer), *_budget(answer)]


def _judged(call: ApiRequest[list[Character]], answer: Response, seconds: float) -> Check:
    try:
        outcome = classify(call, answer)
    except A2VError as error:
        return Check("server", "problem", f"says no: {error}")
    if isinstance(outcome, Retry):
        return Check("server", "problem", f"says no: {outcome.error}")
    words = f"accepts the token and has {number(len(outcome), 'character')}; answered in {seconds:.1f} s"
    return Check("server", "ok", words)


def _clock(reply: Response) -> Iterator[Check]:
    try:
        skew = time.time() - parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError):  # the last for a year that a clock cannot have
        yield Check("clock", "note", "the server does not tell its time, so this machine's was not compared")
        return
    if abs(skew) <= _SKEW:
        yield Check("clock", "ok", "agrees with the server's to the minute")
    else:
        way = "ahead of" if skew > 0 else "behind"
        words = f"this machine is {abs(skew):.0f} s {way} the server: set its clock, or signed URLs may be refused"
        yield Check("clock", "problem", words)


def _budget(reply: Response) -> Iterator[Check]:
    left, total = (reply.headers.get(f"x-ratelimit-{name}", "") for name in ("left", "total"))
    if not re.fullmatch(r"[0-9]{1,15}", left):
        yield Check("budget", "note", "the server does not tell how many requests are left")
        return
    seconds = reset_in(reply.headers)
    words = f"{left} of {total[:15] or 'an unknown number of'} requests left"
    words += f"; the count starts anew in {seconds:.0f} s" if seconds else ""
    yield Check("budget", "note" if int(left) == 0 else "ok", words)


def verdict(checks: list[Check]) -> str | None:
    """What is to be said at the end if something stands in the way."""
    problems = [check.name for check in checks if check.state == "problem"]
    return f"{len(problems)} of {len(checks)} checks found a problem: {', '.join(problems)}" if problems else None
