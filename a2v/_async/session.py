"""What all calls of a client share: who we are, where the server is, how patiently we ask."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar
from attrs import define, field

from a2v._async.transport import Transport
from a2v._core.retry import Again, backoff, judge
from a2v._core.settings import read_base_url, read_token
from a2v.errors import ClientClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from a2v._core.wire import Call

T = TypeVar("T")


@define(eq=False)
class _Run:
    """What a session has in one event loop; it ends with the loop."""

    transport: Transport
    scopes: set[anyio.CancelScope] = field(factory=set)


# Connections and clocks belong to one event loop each, a client may live through several.
_runs: RunVar[WeakKeyDictionary[Session, _Run]] = RunVar("a2v_runs")


class Session:
    """The client without its face: tasks and batches hold this, never the client."""

    def __init__(
        self,
        *,
        token: str | None,
        base_url: str | None,
        timeout: float,
        max_retries: int,
        rate_limit: int | None,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.token = read_token(token, os.environ)
        self.base_url = read_base_url(base_url, os.environ)
        self.timeout = _positive("timeout", timeout)
        if max_retries < 0:
            raise ConfigurationError(f"max_retries must not be negative, got {max_retries}")
        self.max_retries = max_retries
        if rate_limit is not None:
            _positive("rate_limit", rate_limit)
        self.rate_limit = rate_limit
        self._custom_transport = transport
        self._closed = False

    def open(self) -> None:
        """Start to keep connections in this event loop."""
        self._closed = False
        self._run.transport.open()

    async def aclose(self) -> None:
        """End what this event loop still does for this client, and its connections."""
        self._closed = True
        run = self._run
        for scope in list(run.scopes):
            scope.cancel()
        with anyio.CancelScope(shield=True):
            await run.transport.aclose()

    @contextmanager
    def in_use(self) -> Iterator[Transport]:
        """Everything that waits does so in here, so that closing the client ends it.

        Raises:
            ClientClosedError: The client is closed, or was meanwhile.
        """
        if self._closed:
            raise ClientClosedError("the client is closed")
        run = self._run
        with anyio.CancelScope() as scope:
            run.scopes.add(scope)
            try:
                yield run.transport
            finally:
                run.scopes.discard(scope)
        if scope.cancelled_caught:
            raise ClientClosedError("the client was closed during the call")

    async def call(self, call: Call[T]) -> T:
        """Ask the server, again if need be and allowed.

        Raises:
            A2VError: As the outcome means; see ``a2v._core.retry``.
        """
        attempt = 0
        while isinstance(outcome := await self.attempt(call), Again):
            if attempt == self.max_retries:
                raise outcome.error
            await self.pause(outcome, attempt)
            attempt += 1
        return outcome

    async def attempt(self, call: Call[T]) -> T | Again:
        """Ask the server once."""
        with self.in_use() as transport:
            answer = await transport.exchange(self.base_url, self.token, call, self.timeout)
        return judge(call, answer)

    async def pause(self, outcome: Again, attempt: int) -> None:
        """Wait before asking again."""
        jitter = random.random()  # noqa: S311  # spreads siblings, guards nothing
        await self.sleep(backoff(attempt, jitter) if outcome.after is None else outcome.after + jitter)

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        with self.in_use():
            await anyio.sleep(seconds)

    @property
    def _run(self) -> _Run:
        runs = _runs.get(None)
        if runs is None:
            runs = WeakKeyDictionary[Session, _Run]()
            _runs.set(runs)
        if self not in runs:
            runs[self] = _Run(Transport(self._custom_transport))
        return runs[self]


def _positive(name: str, value: Any) -> Any:
    if not value > 0:
        raise ConfigurationError(f"{name} must be more than 0, got {value!r}")
    return value
