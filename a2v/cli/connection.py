"""The connection of a command to its server: a given one, or a local engine that runs as long as the command."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from a2v._core.settings import Secret
from a2v._unicode_paths import find_existing
from a2v.cli.options import DEFAULT_SIZE, ServerOptions, UsageError
from a2v.cli.text_files import interruptible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from a2v import AsyncA2V


@asynccontextmanager
async def connect(server: ServerOptions, recordings: list[Path], size: int = DEFAULT_SIZE) -> AsyncIterator[AsyncA2V]:
    """Return a client of the server, and run the local engine if there is one.

    Args:
        server: The server.
        recordings: The files that a local engine may read.
        size: The size of the videos of a local engine, unless their jobs have another one.

    Raises:
        UsageError: There is no token, the options contradict each other, or the extra ``engine`` is not installed.
    """
    from a2v import AsyncA2V  # noqa: PLC0415  # loads the HTTP library, which help texts do not need

    server.check()
    if not server.local:
        token = Secret(read_token(server.token_file))
        if token.value is None:
            raise UsageError("no token: set A2V_TOKEN, or pass --token-file FILE, or --local to render on this machine")
        async with AsyncA2V(
            token.value, base_url=server.base_url, insecure=server.insecure, budget=server.budget
        ) as client:
            yield client
        return
    with needs_extra():
        from a2v.engine import LocalEngine  # noqa: PLC0415  # an extra
    copies = [server.recordings] if server.recordings and server.recordings.is_dir() else []
    token = Secret(_engine_token(server.data_dir) if server.data_dir else None)
    budget = None
    if os.environ.get("A2V_BUDGET"):  # that of an account elsewhere
        from a2v._budget.memory_store import SharedBudget  # noqa: PLC0415  # few commands need it

        budget = SharedBudget()
    async with (
        LocalEngine(
            data_dir=server.data_dir,
            token=token.value,
            size=size,
            allow_files=[*recordings, *copies],
            characters=server.characters,
        ) as engine,
        AsyncA2V(engine.token, base_url=engine.base_url, budget=budget) as client,
    ):
        yield client


def account(server: ServerOptions) -> tuple[str, Secret] | None:
    """Return the base URL and the token that ``connect`` would use; ``None`` if there is no token yet.

    Raises:
        UsageError: The token cannot be read.
        ConfigurationError: The base URL is invalid.
    """
    if server.local:
        path = server.data_dir / "token" if server.data_dir else None
        return ("http://127.0.0.1", Secret(path.read_text(encoding="ascii"))) if path and path.is_file() else None
    token = read_token(server.token_file)
    return (server.url, Secret(token)) if token else None


def check_budget(server: ServerOptions) -> None:
    """Check the shared budget of a server elsewhere, if there is one. Nothing is sent.

    Raises:
        ConfigurationError: It is invalid, or its file cannot be used.
    """
    given, default = Secret(server.budget), Secret(os.environ.get("A2V_BUDGET"))
    if given.value or default.value:
        from a2v._budget.location import resolve_budget  # noqa: PLC0415  # few commands need it

        resolve_budget(given, default)


@contextmanager
def needs_extra() -> Iterator[None]:
    """Turn the import error of a package of an extra into a usage error, which says how to install it.

    Raises:
        UsageError: The extra is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(str(error)) from None


def read_token(token_file: str | None) -> str | None:
    """Read the token from the file, or else from ``A2V_TOKEN``; ``None`` if there is none.

    Raises:
        UsageError: The file cannot be read, contains no token, or can be read by other users.
    """
    if token_file is None:
        return os.environ.get("A2V_TOKEN") or None
    try:
        if token_file == "-":  # noqa: S105  # a file's name
            token = _read_stdin()
        else:
            path = find_existing(Path(token_file))
            _check_private(path)
            with interruptible():
                token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise UsageError(f"--token-file: {token_file} cannot be read: {reason}") from None
    if not token:
        raise UsageError(f"--token-file: {token_file} contains no token")
    return token


@cache
def _read_stdin() -> str:
    """Return the first line of standard input, which can be read only once."""
    with interruptible():
        return sys.stdin.readline().strip()


def _check_private(path: Path) -> None:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"--token-file: other users can read {path}; run chmod 600 {path} first")


def _engine_token(data_dir: Path) -> str:
    """Return the token of a local engine that keeps its tasks; made once, because a batch's journal is tied to it."""
    from a2v.engine.data_folder import open_data_folder  # noqa: PLC0415  # an extra

    path = data_dir / "token"
    try:
        open_data_folder(data_dir)
        if not path.is_symlink() and not path.exists():
            part = path.with_name(f"token.{secrets.token_hex(8)}")
            with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        token = _read_private(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--data-dir: {path} cannot be used: {reason}; remove it to get a new token") from None
    if not token:
        raise UsageError(f"--data-dir: {path} is empty; remove it to get a new token")
    return token


def _read_private(path: Path) -> str:
    """Read a file that other users can neither have placed there nor read."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "r", encoding="ascii") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file")
        if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            raise ValueError("other users could read or write it")
        return file.read(1024).strip()
