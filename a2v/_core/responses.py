"""What the outcome of a request means: a value, a final error, or an error after which the request may be sent again.

``classify`` is called once for each request, and is the only place that decides this. The rule: a GET can be repeated
freely. ``video.generate`` and ``voice.generate`` cost money each time they arrive and have no idempotency key, so they are sent
again only if they provably did not arrive or were provably refused. In all other cases the outcome is unknown, which is a final error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from a2v._core import wire
from a2v._core.rate_limiter import asked_to_wait, retry_after
from a2v._core.wire import ApiRequest, Envelope, Response
from a2v._values.text import escape
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
    404: NotFoundError,
    408: ServerError,
}


_SHOWN_HEADERS = {*wire.REQUEST_ID_HEADERS, "date", "retry-after"}
# In characters: enough to recognise a message, and short enough for a log.
_MAX_HEADER = 200
_MAX_SHOWN_BODY = 500


class NoResponse(NamedTuple):
    """The outcome of a request without a response.

    Attributes:
        reason: What went wrong.
        sent: Whether any of the request may have reached the server.
    """

    reason: str
    sent: bool


class Retry(NamedTuple):
    """The request may be sent again.

    Attributes:
        error: What to raise if it is not.
    """

    error: A2VError


def classify(request: ApiRequest[T], response: Response | NoResponse) -> T | Retry:
    """Return the value of a response, or ``Retry`` if the request may be sent again.

    A ``RateLimitError`` is always a ``Retry``: the server has provably not done what was asked.

    Args:
        request: The request.
        response: Its outcome.

    Raises:
        A2VError: The outcome is final.
    """
    if isinstance(response, NoResponse):
        return _no_response(request, response)
    try:
        outcome = _classify(request, response)
    except A2VError as error:
        _add_response(error, response)
        raise
    if isinstance(outcome, Retry):
        _add_response(outcome.error, response)
    return outcome


def _classify(request: ApiRequest[T], response: Response) -> T | Retry:
    envelope = _read_envelope(request, response)
    if error_class(response.status_code, _code(envelope)) is RateLimitError:
        return _rate_limited(response, envelope)
    if 200 <= response.status_code < 300:
        return _success(request, response, envelope)
    return _refusal(request, response, envelope)


def _add_response(error: A2VError, response: Response) -> None:
    """Let an error show the parts of a response that help its reader and hold no secrets."""
    error.request_id = response.request_id
    error.headers = {
        name: escape(value[:_MAX_HEADER])
        for name, value in response.headers.items()
        if name in _SHOWN_HEADERS or name.startswith("x-ratelimit-")
    }
    from a2v._core.gateways import excerpt  # noqa: PLC0415  # compiles large patterns, for errors only

    error.body = excerpt(response, _MAX_SHOWN_BODY)


def backoff(tries: int, jitter: float) -> float:
    """Return the seconds to wait before a retry if the server does not say.

    Args:
        tries: The number of earlier retries.
        jitter: A random number in [0, 1), so that several clients do not retry together.
    """
    return min(8.0, 0.5 * 2.0 ** min(tries, 9)) * (0.5 + jitter / 2)


def _read_envelope(request: ApiRequest[Any], response: Response) -> Envelope | ProtocolError:
    if _is_cut(request, response):
        return ProtocolError(f"the response to {request.name} is longer than {request.max_body} bytes")
    try:
        return wire.read_envelope(response.body)
    except ProtocolError as error:
        return error


def _is_cut(request: ApiRequest[Any], response: Response) -> bool:
    return len(response.body) > request.max_body


def _no_response(request: ApiRequest[T], failure: NoResponse) -> Retry:
    if request.costs and failure.sent:
        raise outcome_unknown(request, failure.reason)
    return Retry(TransportError(failure.reason))


def _rate_limited(response: Response, envelope: Envelope | ProtocolError) -> Retry:
    message, code = _message(response, envelope, "too many requests"), _code(envelope)
    wait = retry_after(response.headers)
    return Retry(RateLimitError(message, code=code, status_code=response.status_code, retry_after=wait))


def _success(request: ApiRequest[T], response: Response, envelope: Envelope | ProtocolError) -> T | Retry:
    if isinstance(envelope, Envelope) and envelope.code != wire.OK:
        raise _api_error(response, envelope)
    try:
        if isinstance(envelope, Envelope):
            return request.read(envelope.data)
        described = "" if _is_cut(request, response) else _describe(response)
        problem = ProtocolError(f"{envelope}; {described}") if described else envelope
    except ProtocolError as error:
        problem = error
    if request.costs:
        raise outcome_unknown(request, str(problem))
    if _is_cut(request, response) and request.max_body > wire.MAX_BODY:
        raise problem  # the same list would be cut again, after as many megabytes
    return Retry(problem)


def _refusal(request: ApiRequest[T], response: Response, envelope: Envelope | ProtocolError) -> Retry:
    status = response.status_code
    if status < 400:
        raise ProtocolError(
            f"the server answered {request.method} {request.path} with HTTP {status}, which is not followed"
        )
    error = _not_found(request, response, envelope) if status == 404 else _api_error(response, envelope)
    # 409 reports a conflict, perhaps because this very job was accepted.
    if request.costs and (status in (408, 409) or status >= 500):
        raise outcome_unknown(request, str(error))
    if isinstance(error, ServerError):
        return Retry(error)
    raise error


def submission_unknown(job: Job, reason: str) -> SubmissionUnknownError:
    """Return the error of a submission with an unknown outcome."""
    return SubmissionUnknownError(
        f"the server may or may not have accepted this render, so it is not submitted again: {reason}", job=job
    )


def speech_unknown(job: Job | None, reason: str) -> SubmissionUnknownError:
    """Return the error of a synthesis with an unknown outcome. No video was submitted."""
    return SubmissionUnknownError(
        f"the server may or may not have synthesized this text, so it is not requested again: {reason}", job=job
    )


def outcome_unknown(request: ApiRequest[Any], reason: str) -> SubmissionUnknownError:
    """Return the error of a request that costs money and has an unknown outcome."""
    if request.path == wire.VOICE_GENERATE or request.job is None:
        return speech_unknown(request.job, reason)
    return submission_unknown(request.job, reason)


def error_class(status_code: int, code: int | None) -> type[APIError]:
    """Return the class of error that a response with this HTTP status and envelope code stands for."""
    if status_code == 429 or code == wire.TOO_MANY_REQUESTS:
        return RateLimitError
    if status_code >= 500:
        return ServerError
    kind = _BY_STATUS.get(status_code, APIError)
    return NotFoundError if kind is APIError and code == wire.NOT_FOUND else kind


def _api_error(response: Response, envelope: Envelope | ProtocolError) -> APIError:
    status, code = response.status_code, _code(envelope)
    error = error_class(status, code)(
        _message(response, envelope, "the server rejected the request"), code=code, status_code=status
    )
    if isinstance(error, ServerError) and status == 503:
        error.retry_after = asked_to_wait(response.headers)
    return error


def _not_found(request: ApiRequest[Any], response: Response, envelope: Envelope | ProtocolError) -> NotFoundError:
    """Return the error for HTTP 404, which means a missing resource or a missing method: not all servers have all.

    Code 10001 means a missing resource. Without an envelope, the method is missing: something other than the API
    answered. Any other code leaves it open, unless the request names no resource.
    """
    code, hint = _code(envelope), f"this server does not have the call {request.name}"
    if request.about and code is not None:
        hint = (
            ""
            if code == wire.NOT_FOUND
            else f"this server does not know the {request.about}, or not the call {request.name}"
        )
    message = _message(response, envelope, "not found")
    return NotFoundError(message, code=code, status_code=response.status_code, hint=hint)


def _code(envelope: Envelope | ProtocolError) -> int | None:
    return envelope.code if isinstance(envelope, Envelope) else None


def _message(response: Response, envelope: Envelope | ProtocolError, default: str) -> str:
    if isinstance(envelope, Envelope):
        return envelope.message or default
    described = _describe(response)
    return f"{default}; {described}" if described else default


def _describe(response: Response) -> str:
    from a2v._core.gateways import describe  # noqa: PLC0415  # as above

    return describe(response)
