"""A shared budget in Redis or Valkey, for the processes of several machines.

The log is a list. Its first item names the format and the generation, and the entries follow. One script appends and reads in
one round trip, so no other client can come between. It also returns the server's time, by which all clients measure.

redis-py's asynchronous client works on asyncio only, so this is the blocking one, in threads.
"""

from __future__ import annotations

import secrets
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from a2v._budget.store import FORMAT, Append, Exchanged, Position, StoreUnavailableError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        BusyLoadingError,
        ClusterDownError,
        MovedError,
        NoPermissionError,
        OutOfMemoryError,
        ReadOnlyError,
    )
    from redis.retry import Retry
except ImportError as error:
    raise ImportError('a shared budget in Redis needs redis-py: pip install "a2v[redis]"') from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from a2v._core.settings import Secret

_TIMEOUT = 0.5  # seconds to wait for the server, also to connect
_KEPT = 3600  # seconds for which the log of an account that nobody uses is kept

# Arguments: the generation and the offset of the client, the condition, the header of a new log, seconds to keep the log,
# and the entries. Several entries would fit into one RPUSH, but Lua can unpack only a few thousand values.
_EXCHANGE = """
local log, generation, offset, append = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local header = redis.call('LINDEX', log, 0)
if not header then
    header = ARGV[4]
    redis.call('RPUSH', log, header)
end
local known = header == generation
local count = redis.call('LLEN', log)
if #ARGV > 5 and known and (append == 'always' or count == offset) then
    if append == 'restart' then
        header, known, count = ARGV[4], false, 1
        redis.call('DEL', log)
        redis.call('RPUSH', log, header)
    end
    for i = 6, #ARGV do
        count = redis.call('RPUSH', log, ARGV[i])
    end
end
redis.call('EXPIRE', log, ARGV[5])
local first = 1
if known then first = offset end
local new = {}
if first < count then new = redis.call('LRANGE', log, first, -1) end
local t = redis.call('TIME')
return {header, count, new, t[1], t[2]}
"""


class RedisStore:
    """A store in Redis.

    Args:
        url: The URL of the server: a string, a secret because it may contain a password.
        key: The key of the log.

    Attributes:
        name: The server in messages.
        blocks: Whether it may block.
        check_interval: Seconds between checks for new entries.
    """

    blocks: bool = True
    check_interval: float = 0.2

    def __init__(self, url: Secret, key: str) -> None:
        self.name: str = without_password(url.value)
        self._key = key
        # No retries: they would delay requests. A connection that the server has closed meanwhile is replaced below.
        options: dict[str, Any] = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
        if urlsplit(url.value).scheme.lower() == "rediss":
            options["ssl_check_hostname"] = True  # not the default of all versions of redis-py
        self._client = redis.Redis.from_url(url.value, retry=Retry(NoBackoff(), 0), **options)
        self._script = self._client.register_script(_EXCHANGE)
        # The same with one connection, for exchanges: a pool takes as long as the rest. Connected in the first one.
        self._exchanges: redis.Redis | None = None
        # Held during exchanges: not all versions of redis-py let several threads use one connection.
        self._lock = threading.Lock()
        # The server's time minus that of this machine.
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """See ``Store``."""
        return time.monotonic() + self._offset

    def has_changed(self, position: Position) -> bool:
        """See ``Store``."""
        del position
        return True

    def exchange(self, position: Position, entries: Sequence[bytes], append: Append = Append.ALWAYS) -> Exchanged:
        """See ``Store``."""
        header = f"{FORMAT} {secrets.token_hex(16)}"
        condition = "always" if append is Append.ALWAYS else "restart" if append is Append.RESTART else "end"
        arguments: list[bytes | str | int | float] = [
            f"{FORMAT} {position.generation}", position.offset, condition, header, _KEPT, *entries,
        ]  # fmt: skip
        try:
            with self._lock:
                return self._exchange(arguments)
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailableError(_reason(error)) from None

    def _exchange(self, arguments: list[bytes | str | int | float]) -> Exchanged:
        if self._exchanges is None:
            self._exchanges = self._client.client()  # type: ignore[no-untyped-call]  # redis-py has no types here
        started = time.monotonic()
        try:
            answer = self._script([self._key], arguments, self._exchanges)
        except redis.TimeoutError:
            raise
        except redis.ConnectionError:
            # The server, or a firewall, has closed an idle connection.
            started = time.monotonic()
            answer = self._script([self._key], arguments, self._exchanges)
        return self._read(answer, started, time.monotonic())

    def listen(self, listener: Callable[[], object]) -> None:
        """See ``Store``. There are no listeners."""

    def version(self) -> str:
        """Return the name and the version of the server; empty if it does not say."""
        try:
            facts: Any = self._client.info("server")
        except (redis.RedisError, OSError):
            return ""
        name = "Valkey" if "valkey_version" in facts else "Redis"
        return f"{name} {facts.get(f'{name.lower()}_version', '')}".rstrip()

    def _read(self, answer: Any, started: float, ended: float) -> Exchanged:
        header, count, new, seconds, microseconds = answer
        written_by, _, generation = header.decode("ascii", "replace").rpartition(" ")
        if written_by != FORMAT:
            raise StoreUnavailableError("it is in use by another version of a2v; use the same version everywhere")
        self._offset = int(seconds) + int(microseconds) / 1e6 - (started + ended) / 2
        return Exchanged(Position(generation, count), new)


def without_password(url: str) -> str:
    """Return the server and the database of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# The first that matches counts: some are subclasses of others.
_REASONS: list[tuple[type[Exception] | tuple[type[Exception], ...], str]] = [
    (NoPermissionError, "its user may not run scripts, or not use keys that begin with a2v:budget:"),
    (redis.AuthenticationError, "it rejects the user name or the password"),
    (redis.TimeoutError, f"no response within {_TIMEOUT:g} s"),
    ((MovedError, ClusterDownError), "it belongs to a Redis Cluster, which is not supported; use a single server"),
    (ReadOnlyError, "it is a replica, which cannot be written; use the URL of the primary"),
    (OutOfMemoryError, "its memory is full"),
    (BusyLoadingError, "it is starting"),
]

# Of errors that have no class of their own, by a part of their text in lower case.
_RESPONSES = {
    "unknown command": "it is no Redis server that runs scripts, perhaps a Sentinel; use the URL of the server itself",
    "no permissions": "its user may not run all the commands of the script",
    "can't run this command": "its user may not run all the commands of the script",  # Redis 6
    "wrongtype": "another program uses the same key; choose another database",
}


def _reason(error: Exception) -> str:
    """Describe an error without its text, which may quote the URL."""
    if reason := next((reason for kind, reason in _REASONS if isinstance(error, kind)), None):
        return reason
    if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
        return "its certificate or its TLS is not accepted; a private authority belongs in ?ssl_ca_certs=/path/ca.pem"
    if isinstance(error, redis.ResponseError):
        text = str(error).lower()
        return next((reason for part, reason in _RESPONSES.items() if part in text), type(error).__name__)
    if isinstance(error, redis.ConnectionError):
        return "the connection cannot be made, or was closed"
    return type(error).__name__
