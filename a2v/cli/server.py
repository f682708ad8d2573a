"""Which server a command talks to: a given one, or an engine that lives as long as the command."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
import stat
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attrs import frozen
from cyclopts import Parameter

from a2v import AsyncA2V, Job
from a2v._core.settings import Secret, resolve_base_url
from a2v._unicode_paths import find_existing
from a2v._values import arguments
from a2v._values.text import redacted_repr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from cyclopts import Token


SIZE = 512
Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def expand_home(_: type[Any], tokens: Sequence[Token]) -> Path:
    """Convert an argument to a path, and expand a leading ``~``, which shells leave as it is in ``--option=~/file``."""
    value = tokens[-1].value
    return arguments.path("it", value) if value.startswith("~") else Path(value)


FilePath = Annotated[Path, Parameter(converter=expand_home)]
OptionalPath = Annotated[Path | None, Parameter(converter=expand_home)]
TokenFile = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


class UsageError(Exception):
    """A command was not given what it needs. Nothing was done."""


@Parameter(name="*")
@frozen(kw_only=True)
class Server:
    """Which server a command talks to, and how it prints what it learns.

    Attributes:
        base_url: The server's URL; that of the environment variable A2V_BASE_URL if left out, or else the hosted service.
        token_file: A file with the token that only you can read (chmod 600), or - for standard input; if left out, the
            token of the environment variable A2V_TOKEN.
        local: Start an engine on this machine, for the length of the command, and talk to that one.
        data_dir: With --local: a folder in which the engine keeps its tasks and videos; otherwise they go with it.
        size: With --local: width and height of new videos in pixels: 512 (the default), 720 or 1080.
        as_json: Print JSON: one document, or a line for each change where the command follows videos.
    """

    base_url: str | None = None
    token_file: TokenFile = None
    local: Flag = False
    data_dir: OptionalPath = None
    size: int | None = None
    as_json: Annotated[Flag, Parameter(name="--json")] = False

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: They do.
        """
        if self.local and (self.base_url or self.token_file):
            raise UsageError("--local starts a server with a token of its own: leave out --base-url and --token-file")
        if (self.data_dir or self.size is not None) and not self.local:
            raise UsageError("--data-dir and --size are about the engine of --local: add --local, or leave them out")

    @property
    def is_kept(self) -> bool:
        """Whether tasks outlive the command."""
        return not self.local or self.data_dir is not None

    @property
    def recordings(self) -> Path | None:
        """Where recordings are kept for an engine that keeps its tasks."""
        # Without "..", or another spelling of the folder would make other recordings of them.
        return Path(os.path.abspath(self.data_dir)) / "recordings" if self.data_dir else None  # noqa: PTH100

    @property
    def flags(self) -> str:
        """The options with which another command finds the same server."""
        given = {
            "--base-url": self.base_url,
            "--token-file": self.token_file,
            "--data-dir": self.data_dir,
            "--size": self.size,
        }
        local = " --local" if self.local else ""
        return local + "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value)

    def account(self) -> tuple[str, Secret] | None:
        """The server and the token that ``connect`` would use; ``None`` if there is no token yet.

        Raises:
            UsageError: The token cannot be read.
            ConfigurationError: ``base_url`` cannot be right.
        """
        if self.local:
            kept = self.data_dir / "token" if self.data_dir else None
            return ("http://127.0.0.1", Secret(kept.read_text(encoding="ascii"))) if kept and kept.is_file() else None
        token = read_token(self.token_file)
        return (resolve_base_url(self.base_url, os.environ.get("A2V_BASE_URL")), Secret(token)) if token else None

    @asynccontextmanager
    async def connect(self, files: list[Path]) -> AsyncIterator[AsyncA2V]:
        """A client of the server.

        Args:
            files: What an engine of ``--local`` may read.

        Raises:
            UsageError: There is no token, or the local engine's packages are missing.
        """
        self.check()
        if not self.local:
            token = Secret(read_token(self.token_file))
            if token.value is None:
                raise UsageError(
                    "no token: set A2V_TOKEN, or pass --token-file FILE, or --local to render on this machine"
                )
            async with AsyncA2V(token.value, base_url=self.base_url) as client:
                yield client
            return
        with needs_extra():
            from a2v.engine import LocalEngine  # noqa: PLC0415  # an extra
        kept = [self.recordings] if self.recordings and self.recordings.is_dir() else []
        token = Secret(_kept_token(self.data_dir) if self.data_dir else None)
        async with (
            LocalEngine(
                data_dir=self.data_dir,
                token=token.value,
                size=SIZE if self.size is None else self.size,
                allow_files=[*files, *kept],
            ) as engine,
            AsyncA2V(engine.token, base_url=engine.base_url) as client,
        ):
            yield client


@contextmanager
def needs_extra() -> Iterator[None]:
    """Around an import of ``a2v.engine`` or ``a2v.staging``: the extra may not be installed.

    Raises:
        UsageError: It is not.
    """
    try:
        yield
    except ImportError as error:
        # Its own message names what is missing and the command that installs it.
        raise UsageError(str(error)) from None


def read_token(token_file: str | None) -> str | None:
    """The token in the file, or that of ``A2V_TOKEN``, if there is one.

    Raises:
        UsageError: The file cannot be read, holds none, or can be read by others.
    """
    if token_file is None:
        return os.environ.get("A2V_TOKEN") or None
    try:
        if token_file == "-":  # noqa: S105  # a file's name
            token = sys.stdin.readline().strip()
        else:
            path = find_existing(Path(token_file))
            _check_private(path)
            token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise UsageError(f"--token-file: {token_file} cannot be read: {reason}") from None
    if not token:
        raise UsageError("--token-file: there is no token in it")
    return token


def _kept_token(data_dir: Path) -> str:
    """The token of an engine that keeps its tasks, so that a batch's journal knows it again the next time."""
    path = data_dir / "token"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    """The text of a file that nobody else could have put there or read."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "r", encoding="ascii") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file")
        if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            raise ValueError("others could read or write it")
        return file.read(1024).strip()


def _check_private(path: Path) -> None:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"--token-file: others can read {path}; keep it to yourself first: chmod 600 {path}")


def read_audio(audio: str, server: Server, *, staged: bool = False) -> tuple[str, list[Path]]:
    """What the user means by AUDIO: a URL, or a file of this machine for a local engine or to be staged.

    Args:
        audio: What the user said.
        server: Who is to fetch it.
        staged: Whether files are uploaded for the server.

    Returns:
        The ``audio_url``, that of a file for a file, and the files that the engine must be allowed to read for it.

    Raises:
        UsageError: It is a file that the server cannot reach, does not exist, or cannot be read.
    """
    is_file_url = audio.lower().startswith("file://")
    if "://" in audio and not (is_file_url and (server.local or staged)):
        return audio, []
    path = find_existing(Path(url2pathname(urlsplit(audio).path) if is_file_url else audio).absolute())
    # Unlike the methods of a path, these take a text that is too long for one.
    if not os.path.isfile(path):  # noqa: PTH113
        what = "is a folder" if os.path.isdir(path) else "is neither a URL (https://…) nor a file that exists"  # noqa: PTH112
        hint = "; folders are separated by / on this machine" if "\\" in audio and os.sep == "/" else ""
        raise UsageError(f"{redacted_repr(audio)} {what}{hint}")
    if not server.local and not staged:
        raise UsageError(
            f"{redacted_repr(audio)} is a file on this machine, and the server can only fetch URLs: add --stage-to s3://BUCKET/PREFIX "
            "to upload it to a bucket of yours, put it yourself where the server can download it and pass that URL, or "
            "add --local to render on this machine"
        )
    if server.recordings:
        path = keep(path, server.recordings)
    return path.as_uri(), [path]


def keep(path: Path, folder: Path) -> Path:
    """An engine that takes up a task later may not read where the recording lay first, so it gets a copy."""
    copy = kept(path, folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not copy.exists():
            part = copy.with_name(f"{copy.name}.part")
            shutil.copyfile(path, part)
            part.chmod(0o600)
            part.replace(copy)
    except OSError as error:
        raise UsageError(f"{path} cannot be copied to {folder}: {error.strerror}") from None
    return copy


def kept(path: Path, folder: Path) -> Path:
    """Where ``keep`` puts a recording: its content tells, so that the same recording has the same URL in every run.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        with path.open("rb") as recording:
            digest = hashlib.file_digest(recording, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return folder / f"{digest[:32]}{path.suffix}"


def read_job(audio_url: str, *, model_id: str | None, pose_id: str | None, with_mask: bool) -> Job:
    """What is to be made, found out before anything is started.

    Raises:
        UsageError: It cannot be right.
    """
    if model_id is None and pose_id is None:
        raise UsageError("say who speaks: --model-id, as `a2v characters` lists them, or --pose-id, of `a2v avatars`")
    try:
        # The overloads forbid what the job itself refuses.
        job: Job = Job(model_id, audio_url, pose_id=pose_id, with_mask=with_mask)  # type: ignore[call-overload]
    except ValueError as error:
        raise UsageError(str(error)) from None
    return job
