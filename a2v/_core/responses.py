"""What the outcome of a request means: a value, an error, or "may be sent again".

The rule behind all of it: a GET can be repeated at will; ``video.generate`` costs money each time it arrives and has no
idempotency key, so it is sent again only when it provably did not arrive or was provably refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from a2v._core import wire
from a2v._core.gateways import describe
from a2v._core.rate_limiter import asked_to_wait, retry_after
from a2v._core.wire import ApiRequest, Envelope, Response
from a2v.errors import (
    A2VError,
    APIError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    SubmissionUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from a2v._values.jobs import Job

T = TypeVar("T")

_BY_STATUS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    408: ServerError,
}


_MAY_BE_LIMITED = re.compile(rb'"code"\s*:\s*"?0*%d\b' % wire.TOO_MANY_REQUESTS)


@frozen
class NoResponse:
    """A request that brought no reply.

    Attributes:
        reason: Why, in words.
        sent: Whether any of it may have reached the server.
    """

    reason: str
    sent: bool


@frozen
class Retry:
    """The request may be repeated; if patience has ended, this is the error.

    Attributes:
        error: What to raise when it is not repeated.
    """

    error: A2VError


def classify(call: ApiRequest[T], answer: Response | NoResponse) -> T | Retry:
    """Tell what an answer means for the call that was made.

    Args:
        call: What was asked.
        answer: What came of it.

    Returns:
        The call's value, or that it may be sent again.

    Raises:
        A2VError: The answer is final.
    """
    if isinstance(answer, NoResponse):
        return _judge_failure(call, answer)
    envelope = _open(call, answer)
    if is_rate_limited(call, answer):
        return _judge_rate_limit(answer, envelope)
    if 200 <= answer.status_code < 300:
        return _judge_success(call, answer, envelope)
    return _judge_refusal(call, answer, envelope)


def backoff(attempt: int, jitter: float) -> float:
    """Seconds to wait before another try when the server does not say.

    Args:
        attempt: How many tries there were, from 0.
        jitter: A random number in [0, 1), so that siblings do not come back together.
    """
    return min(8.0, 0.5 * 2.0 ** min(attempt, 9)) * (0.5 + jitter / 2)


def is_rate_limited(call: ApiRequest[Any], reply: Response) -> bool:
    """Whether a reply says that there were too many requests: HTTP 429, or code 1009 at any status."""
    if reply.status_code == 429:
        return True
    # Long lists are not parsed twice for this.
    envelope = _open(call, reply) if _MAY_BE_LIMITED.search(reply.body) else None
    return isinstance(envelope, Envelope) and envelope.code == wire.TOO_MANY_REQUESTS


def _open(call: ApiRequest[Any], reply: Response) -> Envelope | ProtocolError:
    if _is_cut(call, reply):
        return ProtocolError(f"the response to {call.name} is longer than {call.max_body} bytes")
    try:
        return wire.read_envelope(reply.body)
    except ProtocolError as error:
        return error


def _is_cut(call: ApiRequest[Any], reply: Response) -> bool:
    return len(reply.body) > call.max_body


def _judge_failure(call: ApiRequest[T], failure: NoResponse) -> Retry:
    if call.job and failure.sent:
        raise _unknown(call.job, failure.reason)
    return Retry(TransportError(failure.reason))


def _judge_rate_limit(reply: Response, envelope: Envelope | ProtocolError) -> Retry:
    message, code = _message(reply, envelope, "too many requests"), _code(envelope)
    wait = retry_after(reply.headers)
    return Retry(RateLimitError(message, code=code, status_code=reply.status_code, retry_after=wait))


def _judge_success(call: ApiRequest[T], reply: Response, envelope: Envelope | ProtocolError) -> T | Retry:
    if isinstance(envelope, Envelope) and envelope.code != wire.OK:
        raise _api_error(reply, envelope)
    try:
        if isinstance(envelope, Envelope):
            return call.read(envelope.data)
        said = "" if _is_cut(call, reply) else describe(reply)
        problem = ProtocolError(f"{envelope}; {said}") if said else envelope
    except ProtocolError as error:
        problem = error
    if call.job:
        raise _unknown(call.job, str(problem))
    if _is_cut(call, reply) and call.max_body > wire.MAX_BODY:
        raise problem  # the same list again would be cut again, after as many megabytes
    return Retry(problem)


def _judge_refusal(call: ApiRequest[T], reply: Response, envelope: Envelope | ProtocolError) -> Retry:
    status = reply.status_code
    if status < 400:
        raise ProtocolError(f"the server answered {call.method} {call.path} with HTTP {status}, which is not followed")
    error = _not_found(call, reply, envelope) if status == 404 else _api_error(reply, envelope)
    # 409 says that something conflicts, perhaps with this very job having been accepted.
    if call.job and (status in (408, 409) or status >= 500):
        raise _unknown(call.job, str(error))
    if isinstance(error, ServerError):
        return Retry(error)
    raise error


def _unknown(job: Job, reason: str) -> SubmissionUnknownError:
    return SubmissionUnknownError(
        f"the server may or may not have accepted this render, so it is not submitted again: {reason}", job=job
    )


def _api_error(reply: Response, envelope: Envelope | ProtocolError) -> APIError:
    status, code = reply.status_code, _code(envelope)
    kind = ServerError if status >= 500 else _BY_STATUS.get(status, APIError)
    if code == wire.NOT_FOUND and kind is APIError:
        kind = NotFoundError
    error = kind(_message(reply, envelope, "the server refused"), code=code, status_code=status)
    if isinstance(error, ServerError) and status == 503:
        error.retry_after = asked_to_wait(reply.headers)
    return error


def _not_found(call: ApiRequest[Any], reply: Response, envelope: Envelope | ProtocolError) -> NotFoundError:
    """HTTP 404 means a missing thing or a missing call, as not all servers have all calls.

    Code 10001 tells the two apart, and without an envelope it was no part of the API that answered. Any other code leaves
    it open, unless there is no thing that could be missing.
    """
    code, hint = _code(envelope), f"this server does not have the call {call.name}"
    if call.about and code is not None:
        hint = (
            "" if code == wire.NOT_FOUND else f"this server does not know the {call.about}, or not the call {call.name}"
        )
    return NotFoundError(_message(reply, envelope, "not found"), code=code, status_code=reply.status_code, hint=hint)


def _code(envelope: Envelope | ProtocolError) -> int | None:
    return envelope.code if isinstance(envelope, Envelope) else None


def _message(reply: Response, envelope: Envelope | ProtocolError, otherwise: str) -> str:
    if isinstance(envelope, Envelope):
        return envelope.message or otherwise
    said = describe(reply)
    return f"{otherwise}; {said}" if said else otherwise
