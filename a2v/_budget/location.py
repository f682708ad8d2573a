"""The values of ``budget=``, ``--budget`` and ``A2V_BUDGET``."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from a2v._budget.memory_store import SharedBudget
from a2v._budget.store import StoreUnavailableError
from a2v._values import arguments
from a2v._values.text import escape
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2v._budget.store import Store
    from a2v._core.settings import Secret

_FORMS = "a path, redis://HOST:PORT/DB or rediss://HOST:PORT/DB"
_EXAMPLE = "must look like redis://HOST:PORT/DB, such as redis://127.0.0.1:6379/0"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def resolve_budget(given: Secret, default: Secret) -> Callable[[str], Store]:
    """Return a function that returns the store for an account.

    Args:
        given: The argument of the client: a URL, a path, a ``SharedBudget``, or ``None``. A secret: a URL may have a password.
        default: The value of ``A2V_BUDGET``, if there is no argument.

    Raises:
        ConfigurationError: It is invalid, or cannot be used on this machine.
    """
    name, found = ("A2V_BUDGET", default) if given.value is None else ("budget", given)
    if isinstance(found.value, SharedBudget):
        return found.value.store_for
    # Raised here, because the local variables of the functions below hold the value.
    if problem := _problem(found.value):
        raise ConfigurationError(f"{name} {problem}")
    if not _SCHEME.match(os.fspath(found.value)):
        return _in_file(name, found.value)
    try:
        from a2v._budget.redis_store import RedisStore  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    try:
        RedisStore(found, "")  # which reads the options of the URL
    except ValueError:
        raise ConfigurationError(f"{name} has options that redis-py does not know, or that are invalid") from None
    return lambda account: RedisStore(found, f"a2v:budget:{account}")


def _problem(value: object) -> str | None:
    """Describe what is wrong with a value, without quoting a URL."""
    if not isinstance(value, str | os.PathLike):
        return f"must be {_FORMS}, got a value of type {type(value).__name__}"
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip():
        return f"must be {_FORMS}, got {text!r}"
    if not (scheme := _SCHEME.match(text)):
        return _EXAMPLE if re.match(r"rediss?:", text, re.IGNORECASE) else None
    if scheme[1].lower() not in ("redis", "rediss"):
        return f"must be {_FORMS}, got a URL with the scheme {scheme[1]!r}"
    try:
        parts = urlsplit(text)
        is_valid = bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"/?\d*", parts.path) is not None
    except ValueError:
        is_valid = False
    if not is_valid or re.search(r"[\x00-\x20\x7f]", text):
        return _EXAMPLE
    return None


def _in_file(name: str, value: str | os.PathLike[str]) -> Callable[[str], Store]:
    if sys.platform == "win32":  # pragma: no cover
        raise ConfigurationError(
            f"{name} must be redis://HOST:PORT/DB on Windows, which has no file locks of this kind"
        )
    from a2v._budget.file_store import FileStore, open_private  # noqa: PLC0415  # only on POSIX

    path = arguments.path(name, value, error=ConfigurationError)
    try:
        if path.is_dir():
            raise ConfigurationError(f"{name}: {path} is a folder; name a file in it, such as {path / 'a2v.budget'}")
        if not path.parent.is_dir():
            raise ConfigurationError(f"{name}: there is no folder {path.parent}; create it first")
    except OSError as error:
        raise ConfigurationError(f"{name}: {escape(str(path))} cannot be used: {error.strerror}") from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{name}: the folder {path.parent} is not writable")

    def new_store(account: str) -> Store:
        # One file for each account: the fingerprint keeps those of several tokens apart.
        of_account = path.with_name(f"{path.name}-{account[:16]}")
        try:
            os.close(open_private(of_account, create=False))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigurationError(f"{name}: {of_account} cannot be opened: {error.strerror}") from None
        except StoreUnavailableError as error:
            raise ConfigurationError(f"{name}: {of_account}: {error}") from None
        return FileStore(of_account)

    return new_store
