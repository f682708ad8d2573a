"""The options of the commands: types and groups that cyclopts parses, and the checks that need no file and no server."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from attrs import fields, frozen
from cyclopts import Parameter, convert, validators

from a2v import Job
from a2v._core.batch_options import BatchOptions
from a2v._core.settings import resolve_base_url
from a2v._values import arguments
from a2v._values.models import DEFAULT_RENDER_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cyclopts import Token

    from a2v.cli.speaking import Speaker

DEFAULT_SIZE = 512


class UsageError(Exception):
    """An option or argument is missing or invalid. Nothing was done."""


def _path_with_home(_: type[Any], tokens: Sequence[Token]) -> Path:
    """Convert an argument to a path, and expand a leading ``~``, which shells do not expand in ``--option=~/file``."""
    value = tokens[-1].value
    return arguments.path("it", value) if value.startswith("~") else Path(value)


def _text_with_home(_: type[Any], tokens: Sequence[Token]) -> str:
    """Convert an argument that may be a path, and expand a leading ``~`` like ``_path_with_home``."""
    value = tokens[-1].value
    return str(arguments.path("it", value)) if value.startswith("~") else value


_UNITS = {"min": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}
_DURATION = re.compile(rf"([0-9]+(?:\.[0-9]+)?) *({'|'.join(_UNITS)})", re.IGNORECASE)


def _optional_duration(type_: type[Any], tokens: Sequence[Token]) -> float | None:
    """Convert a duration like ``_duration``, or ``none``."""
    return None if tokens[-1].value.strip().lower() == "none" else _duration(type_, tokens)


def _duration(_: type[Any], tokens: Sequence[Token]) -> float:
    """Convert a duration such as ``90``, ``10m`` or ``1h30m`` to seconds."""
    text = tokens[-1].value.strip()
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip() or (len(parts) > 1 and not all(unit for _, unit in parts)):
        raise ValueError(f"{text!r} is not a duration; write seconds, or for example 90s, 10m, 2h, 1h30m or 1d")
    seconds = sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)
    if seconds <= 0:
        raise ValueError("a duration must be more than 0")
    return seconds


def _integer(type_: type[Any], tokens: Sequence[Token]) -> Any:
    """Convert an integer. Cyclopts would round one with a fraction."""
    text = tokens[-1].value
    if "." in text:
        raise ValueError(f"{text!r} is not an integer; write it without a decimal point")
    return convert(type_, tokens)


def _not_blank(_: object, value: str) -> None:
    if not value.strip():
        raise ValueError("an id must not be empty")


Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Integer = Annotated[int, Parameter(converter=_integer)]
OptionalInteger = Annotated[int | None, Parameter(converter=_integer)]
FilePath = Annotated[Path, Parameter(converter=_path_with_home, metavar="FILE")]
OptionalPath = Annotated[Path | None, Parameter(converter=_path_with_home, metavar="FILE")]
OptionalFolder = Annotated[OptionalPath, Parameter(metavar="DIR")]
Output = Annotated[FilePath, Parameter(name=["--output", "-o"])]
AsJson = Annotated[Flag, Parameter(name="--json")]
Verbose = Annotated[int, Parameter(name=["--verbose", "-v"], count=True, negative="", show_default=False)]
PathOrText = Annotated[str, Parameter(converter=_text_with_home)]
OptionalPathOrText = Annotated[str | None, Parameter(converter=_text_with_home)]
TokenFile = Annotated[OptionalPathOrText, Parameter(allow_leading_hyphen=True, metavar="FILE")]
Url = Annotated[str | None, Parameter(metavar="URL")]
Size = Annotated[Integer, Parameter(help="Width and height of the videos in pixels: 512, 720 or 1080.")]
Captions = Annotated[
    tuple[str, ...],
    Parameter(
        help="Captions: files (.srt and .vtt beside the video), track (a track of the file, for players to show), burned (in the"
        " picture), or several, such as files,track. They need an engine of a2v.",
        metavar="WAY",
        negative="",
        show_default=False,
    ),
]
VideoId = Annotated[str, Parameter(help="Id of the video, as `a2v generate` printed it.", validator=_not_blank)]
Timeout = Annotated[
    float | None,
    Parameter(
        help="Time limit of the whole command, such as 10m; a number means seconds. Default: none, but each wait for a video ends after"
        " 24 hours.",
        converter=_duration,
        metavar="TIME",
    ),
]
_Seconds = Annotated[float, Parameter(converter=_duration, metavar="TIME")]
_Count = Annotated[OptionalInteger, Parameter(validator=validators.Number(gte=0))]


@Parameter(name="*")
@frozen(kw_only=True)
class ServerOptions:
    """The server that a command uses, and its output format.

    Attributes:
        base_url: URL of the server. Default: the environment variable A2V_BASE_URL, or the hosted service.
        token_file: File with the token, readable by you alone (chmod 600), or - for standard input. Default: the token in
            the environment variable A2V_TOKEN.
        insecure: Allow http:// to private addresses: anyone in that network can read the token.
        budget: Share one rate limit with the other processes of the account: a path, or redis://HOST:PORT/DB. Default: the
            environment variable A2V_BUDGET, which is safer for a URL with a password, or no sharing.
        local: Start an engine on this machine for the duration of the command, and use it.
        data_dir: With --local: folder in which the engine keeps its tasks and videos. By default, they are deleted at the end;
            a batch keeps those of unfinished jobs in a2v-engine, in the folder of its videos.
        characters: With --local: folder of your own characters (portraits and files NAME.toml).
        as_json: Print JSON: one document, or one line per change for commands that follow videos.
        verbose: Log to standard error what the command does; -vv: also each step of each HTTP request.
    """

    base_url: Url = None
    token_file: TokenFile = None
    insecure: Flag = False
    budget: Annotated[str | None, Parameter(metavar="PATH|URL")] = None
    local: Flag = False
    data_dir: OptionalFolder = None
    characters: OptionalFolder = None
    as_json: AsJson = False
    verbose: Verbose = 0

    def check(self) -> None:
        """Check that the options go together, and that a local engine can use the data folder.

        Raises:
            UsageError: They contradict each other.
            ConfigurationError: The data folder has folders of others.
        """
        elsewhere = {"base_url": self.base_url, "token_file": self.token_file, "insecure": self.insecure}
        if self.local and (options := given_options(elsewhere | {"budget": self.budget})):
            raise UsageError(f"--local starts a server with its own token: remove {options}")
        if not self.local and (options := given_options({"data_dir": self.data_dir, "characters": self.characters})):
            raise UsageError(f"without --local there is no engine to configure: add --local, or remove {options}")
        if self.data_dir:
            from a2v.engine.data_folder import check_data_folder  # noqa: PLC0415  # an extra

            check_data_folder(self.data_dir)

    @property
    def url(self) -> str:
        """The URL of the server, unless it is a local engine.

        Raises:
            ConfigurationError: It is invalid.
        """
        return resolve_base_url(self.base_url, os.environ.get("A2V_BASE_URL"), insecure=self.insecure)

    @property
    def keeps_videos(self) -> bool:
        """Whether the server keeps videos when the command ends."""
        return not self.local or self.data_dir is not None

    @property
    def recordings(self) -> Path | None:
        """The folder in which a local engine that keeps its tasks finds their recordings."""
        # Normalized, so that each spelling of the folder gives the same URLs.
        return Path(os.path.abspath(self.data_dir)) / "recordings" if self.data_dir else None  # noqa: PTH100

    @property
    def flags(self) -> str:
        """The options as text, for a command that uses the same server and output format."""
        values = {
            "--base-url": self.base_url,
            "--token-file": self.token_file,
            # Not a password, which would be printed.
            "--budget": None if "@" in (self.budget or "") else self.budget,
            "--data-dir": self.data_dir,
            "--characters": self.characters,
        }
        local, insecure = " --local" if self.local else "", " --insecure" if self.insecure else ""
        return local + insecure + _as_flags(values) + (" --json" if self.as_json else "")


@Parameter(name="*")
@frozen(kw_only=True)
class VideoFlags:
    """How videos look: fields of the request that an engine of a2v understands. Other servers may ignore or reject them.

    Attributes:
        size: Shorter side of the video in pixels: 512 (default), 720 or 1080.
        format: Shape of the video: square (default), portrait (9:16) or landscape (16:9).
        fps: Frames per second: 24, 25 (default), 30, 50 or 60.
        mood: Expression of the character: warm, concerned, surprised or thoughtful. By default the voice determines it.
        background: A colour such as '#203040', a picture (URL or, with --local, a file), transparent, or character (the character's
            own background).
    """

    size: Annotated[Literal[512, 720, 1080] | None, Parameter(converter=_integer)] = None
    format: Literal["square", "portrait", "landscape"] | None = None
    fps: Annotated[Literal[24, 25, 30, 50, 60] | None, Parameter(converter=_integer)] = None
    mood: Literal["warm", "concerned", "surprised", "thoughtful"] | None = None
    background: OptionalPathOrText = None

    def options(self, *, container: str | None = None, background: str | None = None) -> dict[str, Any]:
        """Return the options of a job.

        Args:
            container: The container of the video, if it is chosen.
            background: The background, with the URL of a picture instead of a file.
        """
        values = {"size": self.size, "format": self.format, "fps": self.fps, "mood": self.mood, "container": container}
        return {name: value for name, value in (values | {"background": background}).items() if value is not None}

    @property
    def flags(self) -> str:
        """The options as text."""
        values = {
            "--size": self.size,
            "--format": self.format,
            "--fps": self.fps,
            "--mood": self.mood,
            "--background": self.background,
        }
        return _as_flags(values)


@Parameter(name="*")
@frozen(kw_only=True)
class SpeakerOptions:
    """Who speaks recordings.

    Attributes:
        model_id: Character that speaks, or its name; see `a2v characters`.
        pose_id: Pose of an avatar that speaks; see `a2v avatars`.
        with_mask: Render a mask too; requires --pose-id.
    """

    model_id: Annotated[str | None, Parameter(metavar="ID")] = None
    pose_id: Annotated[str | None, Parameter(metavar="ID")] = None
    with_mask: Flag = False

    @property
    def columns(self) -> dict[str, Any]:
        """The options as cells of a table."""
        return {
            name: value
            for name, value in (("model_id", self.model_id), ("pose_id", self.pose_id), ("with_mask", self.with_mask))
            if value
        }

    @property
    def flags(self) -> str:
        """The options as text."""
        values = {"--model-id": self.model_id, "--pose-id": self.pose_id}
        return _as_flags(values) + (" --with-mask" if self.with_mask else "")


@Parameter(name="*")
@frozen(kw_only=True)
class StagingOptions:
    """How a server gets recordings that are files on this machine.

    Attributes:
        stage_to: Upload recordings that are files to a bucket, unless they are there already: s3://BUCKET/PREFIX,
            gs://BUCKET/PREFIX or az://CONTAINER/PREFIX. Default: the environment variable A2V_STAGE_TO.
        remove_staged: Delete the uploaded recordings if the command succeeds, except those that a render may still need.
    """

    stage_to: Url = None
    remove_staged: Flag = False

    @property
    def flags(self) -> str:
        """The options as text, for a command that stages to the same bucket."""
        return _as_flags({"--stage-to": self.stage_to}) + (" --remove-staged" if self.remove_staged else "")

    def bucket(self, server: ServerOptions) -> str | None:
        """Return the URL of the bucket that recordings are uploaded to; ``None`` if they are not.

        Raises:
            UsageError: The options contradict each other.
        """
        options = given_options({"stage_to": self.stage_to, "remove_staged": self.remove_staged})
        if server.local and options:
            raise UsageError(f"--local reads the files of this machine: remove {options}")
        bucket = None if server.local else self.stage_to or os.environ.get("A2V_STAGE_TO") or None
        if self.remove_staged and not bucket:
            raise UsageError("--remove-staged deletes what --stage-to uploads: add --stage-to, or set A2V_STAGE_TO")
        return bucket


@Parameter(name="*")
@frozen(kw_only=True)
class BatchFlags:
    """The options of a batch, as they are typed; ``to_options`` gives the ``BatchOptions`` that they mean.

    Attributes:
        journal: File that records the state of each job. Default: a2v-batch.db in the folder of --output. The same command
            with the same journal continues where the last run stopped.
        overwrite: Render a row again if its recording has changed (you pay for it), and replace its file.
        max_in_flight: Maximum number of videos in progress at once. Default: 500 with --local, otherwise no limit.
        limit: Maximum number of jobs to submit; the others are left for a later run.
        quota: Number of submissions that the account has left. If the run needs more, it submits nothing.
        dry_run: Print what a run would submit, and submit nothing.
        resubmit_unknown: Resubmit jobs that the server may have accepted already, so that you may pay for them twice: their row
            numbers or names, or "all".
        resubmit_failed: Resubmit jobs that failed, were rejected by the server, or whose video it no longer has.
        repeat: Print the outcomes of earlier runs too.
        new_token: Confirm that the token of the account has changed since the journal was last used.
        same_recordings: Treat rows that differ from rows of an earlier run only in the query of their audio_url as the same
            recordings with new signatures: do not submit them again.
        new_recordings: Treat such rows as new recordings: submit them.
        render_timeout: Time to wait for each submitted video, such as 90m, or "none" for no limit. Default: 24h.
        report: File for the status of each row, .csv or .json.
    """

    journal: OptionalPath = None
    overwrite: Flag = False
    max_in_flight: Annotated[OptionalInteger, Parameter(validator=validators.Number(gte=1))] = None
    limit: _Count = None
    quota: _Count = None
    dry_run: Flag = False
    resubmit_unknown: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    resubmit_failed: Flag = False
    repeat: Flag = False
    new_token: Flag = False
    same_recordings: Flag = False
    new_recordings: Flag = False
    render_timeout: Annotated[
        float | None, Parameter(converter=_optional_duration, metavar="TIME", show_default=False)
    ] = DEFAULT_RENDER_TIMEOUT
    report: OptionalPath = None

    @property
    def flags(self) -> str:
        """The options as text, for the command that continues the batch; without those that concern one run only."""
        values = {"--journal": self.journal, "--max-in-flight": self.max_in_flight, "--report": self.report}
        timeout = self.render_timeout or "none"
        flags = _as_flags(values | ({} if timeout == DEFAULT_RENDER_TIMEOUT else {"--render-timeout": timeout}))
        return flags + (" --overwrite" if self.overwrite else "")

    def to_options(self, save_to: Path, journal: Path, jobs: Mapping[str, int]) -> BatchOptions:
        """Return the options of the batch.

        Args:
            save_to: The folder of the videos.
            journal: The journal.
            jobs: The jobs by what the user may call them.

        Raises:
            UsageError: They contradict each other, or name a job that there is not.
        """
        if self.same_recordings and self.new_recordings:
            raise UsageError("--same-recordings and --new-recordings exclude each other")
        return BatchOptions(
            save_to=save_to,
            journal=journal,
            overwrite=self.overwrite,
            max_in_flight=self.max_in_flight,
            limit=self.limit,
            quota=self.quota,
            resubmit_unknown=self._jobs_to_resubmit(jobs),
            resubmit_failed=self.resubmit_failed,
            repeat=self.repeat,
            new_token=self.new_token,
            render_timeout=self.render_timeout,
            recordings="same" if self.same_recordings else "new" if self.new_recordings else None,
        )

    def _jobs_to_resubmit(self, jobs: Mapping[str, int]) -> bool | list[int]:
        parts = [part.strip() for value in self.resubmit_unknown for part in value.split(",")]
        words = [word for part in parts for word in ([part] if part in jobs else part.split())]
        if "all" in words:
            return True
        if invalid := [word for word in words if word not in jobs]:
            raise UsageError(
                f'--resubmit-unknown: {", ".join(invalid)} is no row and no name of this batch; give row numbers, names or "all"'
            )
        return [jobs[word] for word in words]


@Parameter(name="*")
@frozen(kw_only=True)
class EngineOptions:
    """The settings of ``a2v serve``; each has the name and the default of an attribute of ``engine.Settings``.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        data_dir: Folder for tasks and videos. By default they are deleted when the engine stops.
        size: Shorter side of the videos in pixels: 512, 720 or 1080.
        format: Shape of the videos: square, portrait (9:16) or landscape (16:9).
        fps: Frames per second: 24, 25, 30, 50 or 60.
        workers: Number of renders that run at once. Default: one per core of this machine.
        dask: Address of the scheduler of a Dask cluster to render on: tcp://host:8786.
        characters: Folder of your own characters (portraits and files NAME.toml). You can change it while the engine runs.
        queue_limit: Maximum number of videos in the queue; others are rejected.
        allow_files: Folder or file that a file:///… audio_url may read. May be repeated.
        allow_private_urls: Allow an audio_url to point to private networks and to this machine.
        allowed_hosts: Host name, besides --host, by which clients may address the engine. May be repeated. If --host means all
            addresses, such as 0.0.0.0, the printed URL has the first of these names.
        revision: Revision of the API: seed (three calls, no status) or later.
        like_hosted: Behave like the hosted service: 30 requests per minute and 1 minute of audio, unless you set other limits, texts of
            up to 500 characters, and 429 responses whose body is not valid JSON.
        requests_per_minute: Maximum number of requests per minute. Default: no limit.
        quota: Maximum number of requests in the lifetime of the data folder. Default: no limit.
        max_audio_seconds: Length of the longest recording to render, such as 5m; a number means seconds. Default: 30m.
        max_render_seconds: Time limit of a render.
        max_render_mib: Memory limit of a render, in MiB.
        keep_days: Days to keep videos and their tasks after the render. Default: forever.
        max_uploads_mib: Space for all uploaded recordings, in MiB. Each is deleted a day after its last use.
        tls_cert: File with the certificate for https://, followed by those of its issuers (PEM). Requires --tls-key.
        tls_key: File with the private key (PEM), readable by you alone.
    """

    host: str = "127.0.0.1"
    port: Integer = 8000
    data_dir: OptionalFolder = None
    size: Integer = DEFAULT_SIZE
    format: Literal["square", "portrait", "landscape"] = "square"
    fps: Integer = 25
    workers: OptionalInteger = None
    dask: str | None = None
    characters: OptionalFolder = None
    queue_limit: Integer = 1000
    allow_files: Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)] = ()
    allow_private_urls: Flag = False
    allowed_hosts: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    revision: Literal["seed", "later"] = "later"
    like_hosted: Flag = False
    requests_per_minute: OptionalInteger = None
    quota: OptionalInteger = None
    max_audio_seconds: _Seconds | None = None
    max_render_seconds: _Seconds = 3600.0
    max_render_mib: Integer = 2048
    keep_days: float | None = None
    max_uploads_mib: Integer = 10_240
    tls_cert: OptionalPath = None
    tls_key: OptionalPath = None


def read_job(audio_url: str, speaker: Speaker, *, with_mask: bool, options: dict[str, Any]) -> Job:
    """Return the job that the arguments of ``a2v generate`` describe.

    Raises:
        UsageError: An argument is missing or invalid.
    """
    if speaker.model_id is None and speaker.pose_id is None:
        raise UsageError("choose who speaks: --model-id (see `a2v characters`) or --pose-id (see `a2v avatars`)")
    try:
        # The overloads forbid what the job itself refuses.
        job: Job = Job(  # type: ignore[call-overload]
            speaker.model_id, audio_url, pose_id=speaker.pose_id, with_mask=with_mask, options=options
        )
    except ValueError as error:
        raise UsageError(keywords_as_options(str(error))) from None
    return job


# Names of keywords that are options too, except `base_url`, which may come from the environment.
_KEYWORDS = {one.name for group in (EngineOptions, SpeakerOptions, BatchFlags) for one in fields(group)}
_FLAGS = "|".join(sorted(_KEYWORDS | {"insecure", "budget", "allow_remote"}))
_SNAKE_CASE = "|".join(sorted(name for name in _KEYWORDS if "_" in name))
_FLAG = re.compile(rf"\b({_FLAGS})=True\b(?: \(--[a-z-]+\))?")
# At the beginning, or a word that is no part of a path or a quoted value.
_KEYWORD = re.compile(
    rf"""(?:^({_FLAGS})(?=:|\ must)|(?<![\w/\\.'"-])({_SNAKE_CASE})(?![\w/\\.=-]))(?:\ \(--[a-z-]+\))?""", re.VERBOSE
)


def in_cli_terms(text: str) -> str:
    """Rewrite an error message of the library for the command line: options instead of keywords, short paths."""
    text = text.replace(f"{os.getcwd()}{os.sep}", "")  # noqa: PTH109  # a string, to be found in others
    text = flags_as_options(text)
    text = re.sub(r'\brecordings="(same|new)"', r"--\1-recordings", text)
    return re.sub(r"\blimit=(\d+)", r"--limit \1", text)


def flags_as_options(text: str) -> str:
    """Rewrite ``overwrite=True`` as ``--overwrite``."""
    return _FLAG.sub(lambda match: _option(match[1]), text)


def keywords_as_options(text: str) -> str:
    """Rewrite the keywords in a message about arguments as options. Messages about tables have columns with the same names."""
    return _KEYWORD.sub(lambda match: _option(match[1] or match[2]), flags_as_options(text))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def given_options(values: Mapping[str, Any]) -> str:
    """Return the names of the options that are given, for a message; empty if none is."""
    *others, last = [_option(name) for name, value in values.items() if value] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _as_flags(values: dict[str, Any]) -> str:
    # A value that begins with a dash would be taken for an option after a space.
    return "".join(
        f" {name}{'=' if str(value).startswith('-') else ' '}{shlex.quote(str(value))}"
        for name, value in values.items()
        if value
    )
