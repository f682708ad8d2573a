"""The commands. What they mean is elsewhere; here stands how they are called, and with which code they exit."""

from __future__ import annotations

import asyncio
import errno
import inspect
import io
import os
import re
import signal
import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, validators

from a2v import (
    A2VError,
    ConfigurationError,
    ManifestError,
    RowError,
    SubmissionUnknownError,
    VideoFailedError,
    VideoStatus,
    WaitTimeoutError,
    __version__,
    _threads,
)
from a2v._core.settings import Secret
from a2v._unicode_paths import find_existing
from a2v.cli.batch import make_batch, show_journal
from a2v.cli.output import announce, print_checks
from a2v.cli.plan import Plan
from a2v.cli.printing import log_to_stderr, number, say
from a2v.cli.server import (
    SIZE,
    FilePath,
    Flag,
    OptionalPath,
    Server,
    TokenFile,
    UsageError,
    needs_extra,
    read_audio,
    read_job,
    read_token,
)
from a2v.cli.session import TimeIsUpError, follow, session, submit, time_limit
from a2v.cli.staging import Staging
from a2v.cli.targets import check_targets, make_folder, recording_of

FAILED = 1
USAGE = 2
UNKNOWN = 3
TIMED_OUT = 4
INTERRUPTED = 130

_EPILOGUE = """Exit codes:
  0  done
  1  a render, a download or a request failed
  2  usage error: a missing or invalid argument; nothing was done
  3  a submission may or may not have been accepted
  4  --timeout expired; a render that was submitted continues at the server
  130  interrupted by Ctrl-C, SIGTERM or SIGHUP; renders continue at the server

Environment: A2V_TOKEN, the token; A2V_BASE_URL, the server; A2V_STAGE_TO, where to upload recordings of this machine.
They are not used with --local."""

app: App = App(
    name="a2v",
    help="Make videos of characters who speak a recording.",
    help_epilogue=_EPILOGUE,
    help_format="plaintext",
    version=f"a2v {__version__}",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


def _not_blank(_: object, value: str) -> None:
    if not value.strip():
        raise ValueError("an id is not empty")


_SAVE = Parameter(name=["--output", "-o"])
_JSON = Parameter(name="--json")
VideoId = Annotated[str, Parameter(help="The id that `a2v generate` printed.", validator=_not_blank)]
Target = Annotated[FilePath, _SAVE, Parameter(help="Where to save the video.")]
Timeout = Annotated[
    float | None,
    Parameter(
        help="Seconds for everything the command does. If left out, it waits for videos for 24 hours at most.",
        validator=validators.Number(gt=0),
    ),
]
Overwrite = Annotated[Flag, Parameter(help="Replace a file that is there already.")]
Mask = Annotated[OptionalPath, Parameter(help="Where to save the mask, too; implies --with-mask.")]
Size = Annotated[int, Parameter(help="Width and height of the videos in pixels: 512, 720 or 1080.")]


@app.command(sort_key=1)
async def demo(
    *,
    output: Annotated[FilePath, _SAVE] = Path("a2v-demo"),
    size: Size = SIZE,
    as_json: Annotated[Flag, _JSON] = False,
) -> None:
    """Make four videos at once, on this machine, from recordings that come with a2v.

    Needs no token and no network: an engine is started for the length of the command.

    Args:
        output: The folder for the videos; made if need be. Videos of an earlier demo are replaced.
        size: Width and height of the videos in pixels: 512, 720 or 1080.
        as_json: Print a line of JSON for each change.
    """
    from a2v.cli.demo import CLIPS, advice, make_videos  # noqa: PLC0415  # of use to this command alone

    make_folder(output)
    server = Server(local=True, size=size, as_json=as_json)
    with time_limit(None) as limit:
        async with session(server, limit, [clip.path for clip in CLIPS]) as (client, out):
            made = await make_videos(client, out, output)
            out.remark(*advice(made, output))


@app.command(sort_key=2)
async def characters(*, timeout: Timeout = None, server: Server = Server()) -> None:  # noqa: B008  # frozen
    """List the characters who can speak: model_id, name, gender, preview picture."""
    with time_limit(timeout) as limit:
        async with session(server, limit) as (client, out):
            out.characters(await client.characters.list())


@app.command(sort_key=2)
async def avatars(*, timeout: Timeout = None, server: Server = Server()) -> None:  # noqa: B008  # frozen
    """List the poses of the avatars, where the server has them: pose_id, avatar, pose, gender, preview picture."""
    with time_limit(timeout) as limit:
        async with session(server, limit) as (client, out):
            out.avatars(await client.avatars.list())


@app.command(sort_key=3)
async def generate(
    audio: Annotated[str, Parameter(help="The URL of the recording; with --local or --stage-to also a file.")],
    /,
    *,
    model_id: Annotated[str | None, Parameter(help="Who speaks; `a2v characters` lists them.")] = None,
    pose_id: Annotated[str | None, Parameter(help="Or which pose of an avatar; `a2v avatars` lists them.")] = None,
    with_mask: Annotated[Flag, Parameter(help="Have a mask made too; goes with --pose-id.")] = False,
    output: Target | None = None,
    mask_output: Mask = None,
    overwrite: Overwrite = False,
    timeout: Timeout = None,
    staging: Staging = Staging(),  # noqa: B008  # frozen
    server: Server = Server(),  # noqa: B008  # frozen
) -> None:
    """Make a video of a character or an avatar speaking a recording, wait for it, and save it.

    The render is submitted once and never again by itself; Ctrl-C stops the waiting, not the render.
    Without -o its URL is printed.
    """
    server.check()
    audio_url, files = read_audio(audio, server, staged=bool(staging.place(server)))
    wants_mask = with_mask or mask_output is not None
    job_for = partial(read_job, model_id=model_id, pose_id=pose_id, with_mask=wants_mask)
    job_for(audio_url)
    check_targets(output, mask_output, [recording_of(audio), *files], overwrite=overwrite)
    if with_mask and not mask_output and not server.is_kept:
        raise UsageError(
            "with --local the mask would be gone at the end: say where to save it, with --mask-output FILE"
        )
    if not output and not server.is_kept:
        raise UsageError("with --local the video would be gone at the end: say where to save it, with -o FILE")
    with time_limit(timeout) as limit:
        async with staging.open(server, audio_url) as reach, session(server, limit, files) as (client, out):
            job = job_for(await reach(audio_url, out))
            task = await submit(client, out, job, target=output, mask_target=mask_output)
            await follow(task, out, overwrite=overwrite, timeout=limit.for_videos)


@app.command(sort_key=4)
async def get(video_id: VideoId, /, *, timeout: Timeout = None, server: Server = Server()) -> None:  # noqa: B008  # frozen
    """Look at a video once: its id, status, and URL or what went wrong."""
    with time_limit(timeout) as limit:
        async with session(server, limit) as (client, out):
            out.answer(await client.videos.get(video_id))


@app.command(sort_key=5)
async def watch(
    *video_ids: VideoId,
    timeout: Timeout = None,
    server: Server = Server(),  # noqa: B008  # frozen
) -> None:
    """Follow videos until all have ended; each change is shown once."""
    if not video_ids:
        raise UsageError("watch needs the id of at least one video")
    failed = []
    with time_limit(timeout) as limit:
        async with session(server, limit) as (client, out):
            for video_id in video_ids:
                out.expect(video_id)
            async with aclosing(client.videos.watch(*video_ids, timeout=limit.for_videos)) as looks:
                async for video in looks:
                    out.show(video)
                    failed += [video] if video.status is VideoStatus.FAILED else []
    if failed:
        raise VideoFailedError(f"{len(failed)} of {number(len(set(video_ids)), 'video')} failed", video=failed[0])


@app.command(sort_key=6)
async def download(
    video_id: VideoId,
    /,
    *,
    output: Target,
    mask_output: Annotated[OptionalPath, Parameter(help="Where to save its mask, too, if it has one.")] = None,
    overwrite: Overwrite = False,
    timeout: Timeout = None,
    server: Server = Server(),  # noqa: B008  # frozen
) -> None:
    """Save a video, after waiting for it if need be."""
    check_targets(output, mask_output, overwrite=overwrite)
    with time_limit(timeout) as limit:
        async with session(server, limit) as (client, out):
            out.expect(video_id, target=output, mask_target=mask_output)
            await follow(client.videos.task(video_id), out, overwrite=overwrite, timeout=limit.for_videos)


@app.command(sort_key=7)
async def batch(
    manifest: Annotated[
        FilePath, Parameter(help="A table with audio_url and model_id: .csv, .jsonl, .json or .xlsx; name is optional.")
    ],
    /,
    *,
    output: Annotated[FilePath, _SAVE, Parameter(help="The folder for the videos; made if need be.")],
    timeout: Timeout = None,
    plan: Plan = Plan(),  # noqa: B008  # frozen
    staging: Staging = Staging(),  # noqa: B008  # frozen
    server: Server = Server(),  # noqa: B008  # frozen
) -> None:
    """Make a video of each row of a table, save it, and remember how far each is.

    Nothing is submitted twice: interrupted or killed, the same command goes on where it was. An audio_url may be a file,
    beside the table if its path is relative: with --local, or with --stage-to for a server elsewhere.
    """
    # The same folder, however its name is composed: another one would have no journal, and all be paid for again.
    manifest, output = find_existing(manifest), find_existing(output)
    with time_limit(timeout):
        await make_batch(manifest, output, plan, staging, server)


@app.command(sort_key=8)
def journal(
    path: Annotated[FilePath, Parameter(help="The journal of a batch.")],
    /,
    *,
    as_json: Annotated[Flag, _JSON] = False,
) -> None:
    """Show how far each job of a batch is, also while it runs."""
    show_journal(find_existing(path), as_json=as_json)


@app.command(sort_key=9)
def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    data_dir: OptionalPath = None,
    token_file: TokenFile = None,
    size: Size = SIZE,
    format: Literal["square", "portrait"] = "square",
    fps: int = 25,
    workers: int | None = None,
    dask: str | None = None,
    queue_limit: int = 1000,
    allow_files: Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)] = (),
    allow_private_urls: Flag = False,
    allow_remote: Flag = False,
    allowed_hosts: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    revision: Literal["seed", "later"] = "later",
    like_hosted: Flag = False,
    requests_per_minute: int | None = None,
    quota: int | None = None,
    max_audio_seconds: float | None = None,
    max_render_seconds: float = 3600.0,
    max_render_mib: int = 2048,
    keep_days: float | None = None,
    log_json: Flag = False,
    as_json: Annotated[Flag, _JSON] = False,
) -> None:
    """Run an engine on this machine until Ctrl-C: the same API as the hosted service, and it really renders.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        data_dir: Where tasks and videos are kept; if left out, they are gone when the engine stops.
        token_file: A file with the token that clients must send, or - for standard input; if left out, A2V_TOKEN, or
            else a random token, which is printed.
        size: The shorter side of the videos in pixels: 512, 720 or 1080.
        format: Whether the videos are as high as wide, or 16 high to 9 wide.
        fps: Frames a second: 25 or 30.
        workers: How many renders run at once; one for each core of this machine if left out.
        dask: The scheduler of a Dask cluster that renders in this machine's place: tcp://host:8786.
        queue_limit: How many videos may wait before more are refused.
        allow_files: A folder or file that an audio_url of the form file:///… may read; can be given several times.
        allow_private_urls: Let an audio_url point into private networks and to this machine.
        allow_remote: Must be given for a host that other machines can reach.
        allowed_hosts: A name beside --host by which clients may address the engine; can be given several times.
        revision: Which revision of the API to speak: seed, the first one, has three calls and no status.
        like_hosted: Be as strict as the hosted service: 30 requests a minute and 1 minute of audio, unless other numbers
            are given, and a refusal over the limit whose body is not valid JSON.
        requests_per_minute: How many requests are answered each minute; no limit if left out.
        quota: How many requests are answered in the life of the data folder; no limit if left out.
        max_audio_seconds: The longest recording that is rendered; 30 minutes if left out.
        max_render_seconds: How long a render may take.
        max_render_mib: How much memory a render may take, in MiB.
        keep_days: How long videos are kept after their render, and the tasks with them; for ever if left out.
        log_json: Log each request and each change of a video as a line of JSON.
        as_json: Print one JSON object when the engine is ready: base_url and token.
    """
    with needs_extra():
        from a2v import engine  # noqa: PLC0415  # an extra

        run_engine, settings_of = engine.serve, engine.Settings
        if dask:
            from a2v.engine import dask_renderer  # noqa: F401, PLC0415  # before the log is set up, because Dask sets up its own
    token = Secret(read_token(token_file))
    settings = settings_of(
        host=host,
        port=port,
        data_dir=data_dir,
        token=token,
        size=size,
        format=format,
        fps=fps,
        workers=workers,
        dask=dask,
        queue_limit=queue_limit,
        allow_files=allow_files,
        allow_private_urls=allow_private_urls,
        allowed_hosts=allowed_hosts,
        revision=revision,
        like_hosted=like_hosted,
        requests_per_minute=requests_per_minute,
        quota=quota,
        max_audio_seconds=max_audio_seconds,
        max_render_seconds=max_render_seconds,
        max_render_mib=max_render_mib,
        keep_days=keep_days,
    )
    log_to_stderr(as_json=log_json)
    told = Secret(settings.token)
    ready = partial(announce, token=told, is_secret=bool(token.value), is_kept=bool(data_dir), as_json=as_json)
    run_engine(settings, allow_remote=allow_remote, ready=ready)


@app.command(sort_key=10)
async def doctor(
    *,
    base_url: str | None = None,
    token_file: TokenFile = None,
    as_json: Annotated[Flag, _JSON] = False,
) -> None:
    """Tell what stands between you and a video: token, server, clock, requests left, extras, FFmpeg's libraries.

    Asks the server once, for its characters. Exits with 1 if there is a problem.

    Args:
        base_url: The server's URL; that of A2V_BASE_URL if left out, or else the hosted service.
        token_file: A file with the token, or - for standard input; the token of A2V_TOKEN if left out.
        as_json: Print one JSON object: ok, and for each check its name, state (ok, note or problem) and words.
    """
    from a2v.cli.doctor import examine, verdict  # noqa: PLC0415  # of use to this command alone

    checks = await examine(base_url, token_file)
    print_checks(checks, as_json=as_json)
    if problems := verdict(checks):
        raise A2VError(problems)


app.register_install_completion_command(help="Have the shell complete commands and options: bash, zsh or fish.")


def run(arguments: list[str]) -> int:
    """Run a command.

    Args:
        arguments: What stands behind the program's name.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A pipe may have an encoding that lacks a letter of somebody's name.
        sys.stdout.reconfigure(errors="backslashreplace")
    _end_orderly_on_signals()
    try:
        _refuse_empty(arguments)
        _run_command(arguments)
    except BrokenPipeError as error:
        # The reader of our output has seen enough. The notes say what continues at the server.
        say(*getattr(error, "__notes__", ()))
        # So that the interpreter does not complain when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except (A2VError, CycloptsError, UsageError, TimeIsUpError, OSError) as error:
        say(f"a2v: {_words(error)}", *getattr(error, "__notes__", ()), *map("  {}".format, _faults(error)))
        return _exit_code(error)
    return 0


def _run_command(arguments: list[str]) -> None:
    """As ``app(arguments)``, in an event loop whose end does not wait for name servers that do not answer."""
    command, bound, _ = app.parse_args(arguments)
    if inspect.iscoroutinefunction(command):
        with asyncio.Runner(loop_factory=_threads.new_event_loop) as runner:
            runner.run(command(*bound.args, **bound.kwargs))
    else:
        command(*bound.args, **bound.kwargs)


def _end_orderly_on_signals() -> None:
    """Have SIGTERM, and SIGHUP when the terminal closes, end a command like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it

        def hang_up(*_: object) -> None:
            # It may come from the terminal and from the shell; a second Ctrl-C would mean not to end in an orderly way.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.raise_signal(signal.SIGINT)

        signal.signal(signal.SIGHUP, hang_up)


def _refuse_empty(arguments: list[str]) -> None:
    """An empty path would mean the current folder, and an empty option its default."""
    for place, argument in enumerate(arguments):
        if not argument or re.fullmatch(r"--[a-z-]+=", argument):
            before = argument[:-1] or (arguments[place - 1] if place else "a2v")
            raise UsageError(f"there is an empty argument after {before}: is a variable not set?")


def _exit_code(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return USAGE
    if isinstance(error, (UsageError, CycloptsError, ConfigurationError, ManifestError)):
        return USAGE
    if isinstance(error, SubmissionUnknownError):
        return UNKNOWN
    return TIMED_OUT if isinstance(error, (WaitTimeoutError, TimeIsUpError)) else FAILED


def _words(error: Exception) -> str:
    if isinstance(error, WaitTimeoutError):
        # Without the library's hint on what goes on at the server: the notes know better, it may have been local.
        return f"video {error.video_id} has not ended after {error.waited:.1f} s"
    words = str(error).strip() or type(error).__name__
    # All of its faults follow, a line each.
    return words.partition("\n")[0] if isinstance(error, ManifestError) else words


def _faults(error: Exception) -> tuple[RowError, ...]:
    return error.faults if isinstance(error, ManifestError) else ()
