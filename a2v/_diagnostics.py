"""The checks of ``a2v doctor``: the installation, the shared budget, and either one request to the server or a render here."""

from __future__ import annotations

import os
import platform
import re
import secrets
import tempfile
import time
import wave
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio.to_thread
from attrs import frozen

from a2v._async.client import AsyncA2V
from a2v._async.requests.transport import Transport
from a2v._core import wire
from a2v._core.rate_limiter import reset_in
from a2v._core.responses import NoResponse, Retry, classify
from a2v._core.sealing import Sealer
from a2v._core.settings import HOSTED, RequestOptions, Secret, resolve_base_url, resolve_token
from a2v._version import __version__
from a2v.errors import A2VError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v._budget.store import Store
    from a2v._core.wire import ApiRequest, Response
    from a2v._values.models import Character

CheckState: TypeAlias = Literal["ok", "note", "problem"]

_TIMEOUT = 15.0
_RENDER_TIMEOUT = 120.0
# With a larger difference, servers may refuse presigned URLs and tokens that expire.
_MAX_CLOCK_SKEW = 60.0
_MOUNTS = "/proc/self/mountinfo"  # Linux
_NETWORK_FILE_SYSTEMS = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
    ]
)


@frozen
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        state: ``"problem"`` if it prevents a2v from working, ``"note"`` if it may matter.
        words: The finding, and what to do.
    """

    name: str
    state: CheckState
    words: str


NO_TOKEN = Check(
    "token", "note", "there is none, and --local needs none; for a server, set A2V_TOKEN, or pass --token-file FILE"
)
"""Found instead of checks of a server, if the user has chosen none."""


def check_installation() -> list[Check]:
    """Check Python, the extras and FFmpeg's libraries."""
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}, a2v {__version__}"
    return [Check("python", "ok", system), *_extras(), *_ffmpeg()]


async def check_access(
    token: Secret, token_source: str, base_url: str | None, *, insecure: bool = False, budget: Secret
) -> list[Check]:
    """Check the token, the base URL and the shared budget; if the first two are valid, ask the server for its characters.

    Args:
        token: The token.
        token_source: Where it comes from.
        base_url: The server. ``None``: that of ``A2V_BASE_URL``, or the hosted service.
        insecure: Whether the token may be sent unencrypted to private addresses.
        budget: The shared budget, as for ``check_budget``.
    """
    valid_token, token_check = _token(token, token_source)
    url, url_check = _base_url(base_url, insecure=insecure)
    if not url or not valid_token:
        return [token_check, url_check, *await check_budget(budget)]
    account = Sealer(valid_token, url).fingerprint
    return [token_check, url_check, *await check_budget(budget, account), *await _server(url, valid_token)]


async def check_budget(budget: Secret, account: str | None = None) -> list[Check]:
    """Check that the store of a shared budget can be read and written, if there is one.

    Args:
        budget: Its path or URL. ``None``: that of ``A2V_BUDGET``.
        account: The account, whose log is read. Entries are written to a log of this check's own.
    """
    default = Secret(os.environ.get("A2V_BUDGET"))
    if budget.value is None and not default.value:
        return []
    from a2v._budget.location import resolve_budget  # noqa: PLC0415  # needed by this check only

    try:
        new_store = resolve_budget(budget, default)
        stores = [new_store(account)] if account else []
        stores.append(new_store(f"doctor-{secrets.token_hex(4)}"))
    except ConfigurationError as error:
        return [Check("shared budget", "problem", re.sub(r"^budget\b", "--budget", str(error)))]
    return await anyio.to_thread.run_sync(partial(_try_stores, stores))


def _try_stores(stores: list[Store]) -> list[Check]:
    from a2v._budget.store import Position, StoreUnavailableError  # noqa: PLC0415  # as above

    probe, entry, began = stores[-1], secrets.token_bytes(16), time.monotonic()
    path: Path | None = getattr(probe, "path", None)
    position = Position()
    try:
        for store in stores:
            position = store.exchange(Position(), []).position
        is_read = probe.exchange(position, [entry]).entries == [entry]
    except StoreUnavailableError as error:
        return [Check("shared budget", "problem", f"{probe.name} cannot be used: {error}{_advice(path, str(error))}")]
    finally:
        if path:
            path.unlink(missing_ok=True)
    if not is_read:
        return [Check("shared budget", "problem", f"{probe.name} does not return what was written to it")]
    seconds = time.monotonic() - began
    if path is None:
        version: str = getattr(probe, "version", str)()
        shown = f"{probe.name}{f' ({version})' if version else ''}"
        return [Check("shared budget", "ok", f"{shown} can be read and written; responded in {seconds:.2f} s")]
    shown = str(path).rpartition("-doctor-")[0]
    if system := _network_file_system(path):
        words = (
            f"{shown} is on a network file system ({system}): use a path on this machine, or Redis for several machines"
        )
        return [Check("shared budget", "note", words)]
    return [Check("shared budget", "ok", f"{shown} can be read and written by the processes of this machine")]


def _advice(path: Path | None, problem: str) -> str:
    """Return what to do about a store that cannot be used, unless the problem says it."""
    if path:
        return "; choose a path that this user can write"
    if "may not" in problem:
        commands = "EVALSHA, SCRIPT LOAD, LINDEX, LLEN, LRANGE, RPUSH, DEL, EXPIRE and TIME"
        return f" (it needs {commands}; for a database other than 0, SELECT too)"
    if "connection" in problem or "no response" in problem:
        return "; check that the server runs at this address and that this machine may connect to it"
    return ""


def _network_file_system(path: Path) -> str | None:
    """Return the type of the file system of a path if it is one of a network, as far as the system says."""
    try:
        lines = Path(_MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return None
    folder, found = os.path.realpath(path.parent), ("", "")
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), (mount.split(" ") + [""] * 5)[4])
        if point and Path(folder).is_relative_to(point) and len(point) >= len(found[0]):
            found = point, source.partition(" ")[0]
    return found[1] if found[1] in _NETWORK_FILE_SYSTEMS else None


async def check_characters(folder: Path) -> list[Check]:
    """Check the files of a folder of characters.

    Raises:
        ImportError: The extra ``engine`` is not installed.
    """
    from a2v.engine.characters.catalogue import Catalogue, is_built_in  # noqa: PLC0415  # only if asked for

    catalogue = Catalogue(folder)
    found = await catalogue.current()
    if catalogue.error:
        return [Check("characters", "problem", f"{folder} cannot be read: {catalogue.error}")]
    own = [model_id for model_id, spec in found.specs.items() if not is_built_in(spec)]
    valid = Check("characters", "ok", f"{len(own)} valid in {folder}: {', '.join(own)}" if own else f"none in {folder}")
    return [valid, *(Check("characters", "problem", str(problem)) for problem in found.problems)]


async def check_rendering(characters: Path | None = None) -> list[Check]:
    """Render a third of a second on this machine, as ``--local`` does.

    Args:
        characters: A folder of the user's own characters.
    """
    try:
        from a2v._budget.memory_store import SharedBudget  # noqa: PLC0415  # needed by this check only
        from a2v.engine import LocalEngine  # noqa: PLC0415  # an extra
    except ImportError as error:
        return [Check("engine", "problem", str(error))]
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            recording = Path(folder, "a2v-doctor.wav")
            with wave.open(str(recording), "wb") as sound:
                sound.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
                sound.writeframes(bytes(2 * 16_000 // 3))
            async with (
                LocalEngine(allow_files=[recording], characters=characters) as engine,
                # A2V_BUDGET is that of an account elsewhere.
                AsyncA2V(engine.token, base_url=engine.base_url, budget=SharedBudget()) as client,
            ):
                found = await client.characters.list()
                task = await client.videos.generate(model_id=found[0].model_id, audio_url=recording.as_uri())
                await task.download(Path(folder, "a2v-doctor.mp4"), timeout=_RENDER_TIMEOUT)
    except (A2VError, OSError) as error:
        return [Check("engine", "problem", f"this machine cannot render: {error}")]
    seconds = time.monotonic() - began
    return [Check("engine", "ok", f"rendered a test video in {seconds:.1f} s; has {len(found)} characters")]


def _extras() -> Iterator[Check]:
    """Check which extras are installed, by the requirements in the metadata of the package."""
    needs: dict[str, list[str]] = {}
    for requirement in metadata.requires("a2v") or []:
        if found := re.fullmatch(r"([\w.-]+)[^;]*;.*\bextra == [\"'](\w+)[\"'].*", requirement):
            needs.setdefault(found[2], []).append(found[1])
    needs.pop("all", None)
    for extra, packages in needs.items():
        missing = [package for package in packages if not _version(package)]
        if missing:
            words = f'not installed: pip install "a2v[{extra}]" (missing: {", ".join(missing)})'
        else:
            words = ", ".join(f"{package} {_version(package)}" for package in packages)
        yield Check(f"extra {extra}", "note" if missing else "ok", words)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _ffmpeg() -> Iterator[Check]:
    """Check the libraries of PyAV, with which the local engine decodes and encodes."""
    if not _version("av"):
        return
    try:
        av: Any = import_module("av")
        av.Codec("libx264", "w")
        av.Codec("aac", "w")
    except Exception as error:  # noqa: BLE001  # a broken library may raise anything
        reason = str(error) or type(error).__name__
        words = f"the local engine cannot encode: {reason}; reinstall PyAV: pip install --force-reinstall av"
        yield Check("ffmpeg", "problem", words)
        return
    names = ("libavcodec", "libavformat", "libavutil")
    versions = ", ".join(f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in names)
    yield Check("ffmpeg", "ok", f"{versions}; encodes H.264 and AAC")


def _token(token: Secret, source: str) -> tuple[Secret | None, Check]:
    if token.value is None:
        return None, Check(
            "token", "problem", "there is none: set A2V_TOKEN, or pass --token-file FILE; --local needs none"
        )
    try:
        return resolve_token(token, Secret(None)), Check("token", "ok", f"found in {source}")
    except A2VError as error:
        return None, Check("token", "problem", str(error))


def _base_url(base_url: str | None, *, insecure: bool) -> tuple[str | None, Check]:
    source = "--base-url" if base_url is not None else "A2V_BASE_URL"
    try:
        url = resolve_base_url(base_url, os.environ.get("A2V_BASE_URL"), insecure=insecure)
    except A2VError as error:
        return None, Check("base_url", "problem", f"{error} (set by {source})")
    return url, Check("base_url", "ok", f"{url} ({'the hosted service' if url == HOSTED else f'from {source}'})")


async def _server(url: str, token: Secret) -> list[Check]:
    transport, request = Transport(None), wire.character_list()
    began = time.monotonic()
    try:
        response = await transport.exchange(url, token, request, RequestOptions(_TIMEOUT, max_retries=0))
    except A2VError as error:
        return [Check("server", "problem", f"no request can be sent: {error}")]
    finally:
        await transport.aclose()
    seconds = time.monotonic() - began
    if isinstance(response, NoResponse):
        return [Check("server", "problem", f"cannot be reached: {response.reason}")]
    # Also for a refusal, of which the clock or the rate limit may be the reason.
    return [_outcome(request, response, seconds), *_clock(response), *_rate_limit(response)]


def _outcome(request: ApiRequest[list[Character]], response: Response, seconds: float) -> Check:
    try:
        outcome = classify(request, response)
    except A2VError as error:
        return Check("server", "problem", f"rejected the request: {error}")
    if isinstance(outcome, Retry):
        return Check("server", "problem", f"rejected the request: {outcome.error}")
    characters = f"{len(outcome)} character{'' if len(outcome) == 1 else 's'}"
    return Check("server", "ok", f"accepts the token and has {characters}; responded in {seconds:.1f} s")


def _clock(response: Response) -> Iterator[Check]:
    try:
        skew = time.time() - parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError):  # the last one for a year out of range
        yield Check("clock", "note", "the server did not send its time, so this machine's clock was not compared")
        return
    if abs(skew) <= _MAX_CLOCK_SKEW:
        yield Check("clock", "ok", "agrees with the server's to the minute")
    else:
        direction = "ahead of" if skew > 0 else "behind"
        words = (
            f"this machine is {abs(skew):.0f} s {direction} the server: set its clock, or signed URLs may be rejected"
        )
        yield Check("clock", "problem", words)


def _rate_limit(response: Response) -> Iterator[Check]:
    left, total = (response.headers.get(f"x-ratelimit-{name}", "") for name in ("left", "total"))
    if not re.fullmatch(r"[0-9]{1,15}", left):
        yield Check("budget", "note", "the server did not send how many requests are left")
        return
    seconds = reset_in(response.headers)
    words = f"{left} of {total[:15] or 'an unknown number of'} requests left"
    words += f"; resets in {seconds:.0f} s" if seconds else ""
    yield Check("budget", "note" if int(left) == 0 else "ok", words)
