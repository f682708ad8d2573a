"""The HTTP libraries whose transports a client can send through: httpx, and httpx2 if the process uses it.

httpx2 continues httpx and has the same names, but its classes are unrelated: a transport needs a request of its own library, and
raises that library's exceptions. ``library_of`` returns the library to build requests with. ``errors_named`` returns the
exceptions of both, because a transport of one may wrap a transport of the other.

httpx2 is not a dependency and is never imported here. A transport of httpx2 exists only if the process has imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from types import ModuleType, TracebackType


class AsyncTransport(Protocol):
    """An ``httpx.AsyncBaseTransport`` or an ``httpx2.AsyncBaseTransport``: what both have in common, for type checkers."""

    async def __aenter__(self) -> Any:
        """Open the transport."""
        ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the transport."""
        ...

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request of the transport's library and return its response."""
        ...

    async def aclose(self) -> None:
        """Close the transport."""
        ...


def library_of(transport: object) -> ModuleType:
    """Return the library that a transport belongs to, ``httpx`` or ``httpx2``.

    Raises:
        ConfigurationError: It is not an asynchronous transport.
    """
    for library in _libraries():
        if isinstance(transport, library.AsyncBaseTransport):
            return library
    # Not its repr: a proxy's URL with a password may have been passed by mistake.
    kind = transport if isinstance(transport, type) else type(transport)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    raise ConfigurationError(
        "transport must be an asynchronous httpx transport or one of httpx2, such as httpx.AsyncHTTPTransport(…), "
        f"got {'the class ' if kind is transport else ''}{name}"
    )


def errors_named(*names: str, others: tuple[type[Exception], ...] = ()) -> tuple[type[Exception], ...]:
    """Return the exceptions with these names of all libraries that the process uses, and others."""
    return (*others, *(getattr(library, name) for library in _libraries() for name in names))


def _libraries() -> list[ModuleType]:
    httpx2 = sys.modules.get("httpx2")
    # Another thread may be importing it; no transport of it exists then.
    return [httpx, httpx2] if httpx2 and hasattr(httpx2, "__all__") else [httpx]
