"""The dispatcher of a client with a shared budget.

It differs from the base class in where decisions are made: `SharedAccount` has the schedule and the rate limit of
the whole account, and reserving a request takes an exchange with the store. So the driver also checks for entries of
other members, and writes heartbeats while it waits.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import anyio

from a2v._async.requests.dispatcher import EPSILON, Connection, RequestDispatcher
from a2v._async.requests.shared_account import BudgetOptions, SharedAccount
from a2v._core.wire import Response

if TYPE_CHECKING:
    from a2v._core.poll_scheduler import PollEvent, ScheduledRequest
    from a2v._core.rate_limiter import Pace, RequestKind
    from a2v._core.responses import NoResponse


class SharedDispatcher(RequestDispatcher):
    """Sends the requests of one client in one event loop, when the shared budget allows it.

    Args:
        connection: Where and how to send requests.
        budget: The shared budget.
    """

    def __init__(self, connection: Connection, budget: BudgetOptions) -> None:
        self._account = SharedAccount(
            budget, connection.known_videos, self._publish, self._notice_change, lambda: self._has_driver
        )
        super().__init__(connection, self._account, self._account)
        # Whether events were published, so that the driver itself may be ready.
        self._has_published = False

    async def pace(self) -> Pace:
        """Return the rate limit of the account, and when this client sends its next request."""
        await self._account.sync()
        return await super().pace()

    async def aclose(self) -> None:
        """Leave the shared budget."""
        await self._account.aclose()

    async def _drive(self) -> None:
        self._has_driver = True
        try:
            scheduled, number = await self._reserve()
        finally:
            self._has_driver = False
        if scheduled is None:
            return
        if scheduled.kind in self._queues:
            queued = next(iter(self._queues[scheduled.kind]), None)
            if queued is None:  # its caller was cancelled meanwhile
                self._account.cancel(number)
                return
            del self._queues[scheduled.kind][queued]
            queued.reservation = number
            self._wake(queued)
        else:
            self._wake_next_driver()
            await self._poll(scheduled, number)

    async def _reserve(self) -> tuple[ScheduledRequest | None, int]:
        """Reserve the next request; return it with its number, or ``None`` if there may have been a change to consider first."""
        account = self._account
        account.collect()
        now = self.now()
        scheduled = self._next_request(account.log.limiter, now)
        if scheduled is None or scheduled.at > now + EPSILON:
            # Not needed if a request is due: ``send`` fails if there are new entries.
            await account.sync()
            scheduled = None
        if self._has_published:
            self._has_published = False
            return None, 0
        if scheduled is None:
            now = self.now()
            scheduled = self._next_request(account.log.limiter, now)
        if scheduled and scheduled.at <= now + EPSILON:
            number = await account.send(scheduled, self._waits(after=scheduled))
            return (scheduled, number) if number else (None, 0)
        # Any change from here on wakes the driver.
        self._changed = anyio.Event()
        await account.set_waits(self._waits())
        delay = scheduled.at - now if scheduled else inf
        if scheduled and scheduled.kind in self._queues:
            self._log_wait(scheduled.at, delay)
        with anyio.CancelScope(deadline=anyio.current_time() + min(delay, account.check_interval)):
            await self._changed.wait()
        return None, 0

    def _waits(self, after: ScheduledRequest | None = None) -> set[RequestKind]:
        """Return the kinds of requests that wait here and could be sent now if it were their turn."""
        if self._account.log.is_full:
            return set()
        sent = after and after.kind
        return {kind for kind, queue in self._queues.items() if len(queue) > (kind is sent)}

    def _wake_next_driver(self) -> None:
        super()._wake_next_driver()
        if not self._sleeping and not self._has_driver:
            self._account.stop_waiting()

    def _release(
        self,
        reservation: int,
        response: Response | NoResponse | None,
        *,
        throttled: bool = False,
        unused: bool = False,
    ) -> None:
        if unused:
            self._account.cancel(reservation)
        elif isinstance(response, Response):
            self._account.release(reservation, response.headers, response.status_code, throttled=throttled)
        else:
            self._account.release(reservation, None)
        self._changed.set()

    def _publish(self, events: list[PollEvent]) -> None:
        if own := [event for event in events if event[0] in self._subscribers]:
            self._has_published = True
            super()._publish(own)

    def _notice_change(self) -> None:
        self._changed.set()
