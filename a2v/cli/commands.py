"""The commands: their arguments, and the exit codes they end with."""

from __future__ import annotations

import asyncio
import errno
import inspect
import io
import json
import logging
import os
import re
import shlex
import signal
import sys
from contextlib import aclosing, nullcontext, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from attrs import asdict, evolve
from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from a2v import (
    A2VError,
    AuthenticationError,
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
from a2v._core import wire
from a2v._core.settings import Secret
from a2v._unicode_paths import find_existing
from a2v.cli.captions import caption_options, captions_flag, read_ways
from a2v.cli.character_files import check_characters, new_character
from a2v.cli.connection import connect, needs_extra, read_token
from a2v.cli.events import (
    AvatarsListed,
    CharactersListed,
    ChecksCompleted,
    EngineReady,
    Info,
    Previews,
    TrackedVideo,
    VideoShown,
    VideosListed,
    VoicesListed,
    Warned,
)
from a2v.cli.help import ASKING, CHECKING, DEMO, ENVIRONMENT, OFFLINE, SUBMITTING, Formatter, epilogue
from a2v.cli.logs import log_command, log_to_stderr
from a2v.cli.options import (
    DEFAULT_SIZE,
    AsJson,
    BatchFlags,
    Captions,
    EngineOptions,
    FilePath,
    Flag,
    OptionalFolder,
    OptionalInteger,
    OptionalPath,
    OptionalPathOrText,
    Output,
    PathOrText,
    ServerOptions,
    Size,
    SpeakerOptions,
    StagingOptions,
    Timeout,
    TokenFile,
    Url,
    UsageError,
    Verbose,
    VideoFlags,
    VideoId,
    flags_as_options,
    given_options,
    keywords_as_options,
    read_job,
)
from a2v.cli.portrait import CONSENT, POSE_ID, check_portrait_options, serve_portrait
from a2v.cli.recordings import open_staging, read_audio, read_background, upload_recordings
from a2v.cli.renderers import open_renderer
from a2v.cli.speaking import Speaker, check_speech, choose_voice, find_speaker, read_text
from a2v.cli.targets import check_kept, check_targets, container_of, output_folder, recording_of, side_targets
from a2v.cli.terminal import eprint, plural, program, quote_path
from a2v.cli.tracking import CommandTimeoutError, time_limit, track_videos

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from a2v._diagnostics import Check

FAILED = 1
USAGE = 2
UNKNOWN = 3
TIMED_OUT = 4
INTERRUPTED = 130

_SAFE_TOKEN = 16
"""Shorter tokens of `serve` cause a warning."""
_Command = TypeVar("_Command", bound="Callable[..., Any]")

app: App = App(
    name="a2v",
    help="Make videos of characters that speak a recording or a text.",
    help_epilogue=f"{epilogue(SUBMITTING)}\n\n{ENVIRONMENT}",
    help_format="plaintext",
    help_formatter=Formatter(),
    version=f"a2v {__version__}",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


def _command(  # most by keyword
    order: int,
    codes: Sequence[int],
    *examples: str,
    name: str | None = None,
    usage: str | None = None,
    synonyms: Sequence[str] = (),
) -> Callable[[_Command], _Command]:
    """Register a command.

    Args:
        order: Its place in the list of commands.
        codes: The exit codes that it can end with.
        examples: Command lines for its help.
        name: Its name, if it is not the function's.
        usage: Its arguments, if the signature does not show them well.
        synonyms: Words for which "Did you mean" suggests it.
    """
    return partial(
        app.command,
        name=name,
        usage=usage and f"Usage: a2v {usage}",
        sort_key=order,
        help_epilogue=epilogue(codes, *examples),
        synonym=list(synonyms),
    )


Target = Annotated[Output, Parameter(help="File to save the video to.")]
Pictures = Annotated[
    OptionalFolder,
    Parameter(help="Folder to save the pictures in; created if necessary. Required to get them with --local."),
]
Overwrite = Annotated[Flag, Parameter(help="Replace files that exist.")]


@_command(1, DEMO, "a2v demo", "a2v demo -o videos --size 720", synonyms=("example", "try"))
async def demo(
    *,
    output: Annotated[Output, Parameter(metavar="DIR")] = Path("a2v-demo"),
    size: Size = DEFAULT_SIZE,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Make four videos on this machine, from recordings that come with a2v.

    Needs no token and no network: an engine runs for the duration of the command.

    Args:
        output: Folder for the videos; created if necessary. Videos of an earlier demo are replaced.
        size: Width and height of the videos in pixels: 512, 720 or 1080.
        as_json: Print one line of JSON per change.
        verbose: Log to standard error what the command does; -vv: also each step of each HTTP request.
    """
    from a2v.cli.demo import CLIPS, advice, make_videos  # noqa: PLC0415  # needed by this command only

    server = ServerOptions(local=True, as_json=as_json, verbose=verbose)
    with output_folder(output), time_limit(None) as limit:
        async with track_videos(server, limit, [clip.path for clip in CLIPS], size) as tracker:
            made = await make_videos(tracker, output)
            tracker.events.emit(Info(tuple(advice(made, output))))


@_command(
    2,
    ASKING,
    "a2v characters",
    "a2v characters --local --save pictures",
    synonyms=("models", "people"),
)
async def characters(
    *,
    save: Pictures = None,
    timeout: Timeout = None,
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """List the characters, with their model_id, name, gender and picture."""
    with time_limit(timeout) as limit:
        async with track_videos(server, limit) as tracker:
            found = await tracker.client.characters.list()
            urls = {one.model_id: one.preview_url for one in found}
            tracker.events.emit(CharactersListed(found, await _previews(urls, save, server)))


@_command(3, ASKING, "a2v avatars", synonyms=("avatar", "poses"))
async def avatars(
    *,
    save: Pictures = None,
    timeout: Timeout = None,
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """List the poses of the avatars, if the server has any, with their pose_id, avatar, name, gender and picture."""
    with time_limit(timeout) as limit:
        async with track_videos(server, limit) as tracker:
            found = await tracker.client.avatars.list()
            urls = {pose.pose_id: pose.preview_url or one.preview_url for one in found for pose in one.poses}
            tracker.events.emit(AvatarsListed(found, await _previews(urls, save, server)))


async def _previews(urls: dict[str, str], folder: Path | None, server: ServerOptions) -> Previews:
    """Fetch the pictures if they are saved, or if they end with the local engine and the terminal shows them."""
    # Needed by two commands only.
    from a2v.cli import pictures  # noqa: PLC0415

    is_shown = server.local and not server.as_json and sys.stdout.isatty() and pictures.can_show()
    found = await pictures.fetch(urls) if folder or is_shown else []
    saved = pictures.save(found, folder) if folder else {}
    # The URLs of a local engine end with this command.
    return Previews({} if server.local else urls, saved, {one.name: one for one in found if is_shown})


@_command(
    4,
    SUBMITTING,
    "a2v generate speech.wav --model-id eva_a0008 --local -o hello.mp4",
    "a2v generate https://example.com/hello.wav --model-id eva_a0008",
    synonyms=("create", "make", "new", "render", "run", "submit"),
)
async def generate(
    audio: Annotated[PathOrText, Parameter(help="URL of the recording, or a file.")],
    /,
    *,
    model_id: Annotated[
        str | None, Parameter(metavar="ID", help="Character that speaks, or its name; see `a2v characters`.")
    ] = None,
    pose_id: Annotated[
        str | None, Parameter(metavar="ID", help="Pose of an avatar that speaks; see `a2v avatars`.")
    ] = None,
    with_mask: Annotated[Flag, Parameter(help="Render a mask too; requires --pose-id.")] = False,
    output: Target | None = None,
    mask_output: Annotated[OptionalPath, Parameter(help="File to save the mask to; implies --with-mask.")] = None,
    portrait: Annotated[
        OptionalPath,
        Parameter(
            help="Photo or illustration of one face, which speaks instead of a character; implies --local. "
            "The person shown must have consented."
        ),
    ] = None,
    captions: Captions = (),
    captions_file: Annotated[
        OptionalPath, Parameter(help="File with the captions of the recording, .srt or .vtt, for --captions.")
    ] = None,
    transcript: Annotated[
        OptionalPath,
        Parameter(
            help="File with the text of the recording, in English, for --captions: the engine finds the time of each word. It needs"
            " the extra transcripts."
        ),
    ] = None,
    overwrite: Overwrite = False,
    timeout: Timeout = None,
    video: VideoFlags = VideoFlags(),  # noqa: B008  # frozen
    staging: StagingOptions = StagingOptions(),  # noqa: B008  # frozen
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """Make a video of a character or an avatar that speaks a recording, wait for it, and save it.

    The extension of -o chooses the format: .mp4 or, with an a2v engine, .webm (VP9), .mov (ProRes 4444), .webp or .gif. WebM and MOV
    are transparent unless you pass --background. WebP and GIF are animated pictures of up to 30 s, without sound. Without -o, the
    command prints the URL of the video.

    The video is submitted once and never resubmitted automatically. Ctrl-C stops the wait. A render on a server continues; with
    --local, it ends with the command unless you pass --data-dir.
    """
    if portrait:
        check_portrait_options(server, model_id, pose_id)
        server, pose_id = evolve(server, local=True), POSE_ID
    server.check()
    audio_url, files = read_audio(audio, server, staged=bool(staging.bucket(server)))
    wants_mask = with_mask or mask_output is not None
    background, pictures = read_background(video.background, server)
    options = video.options(container=container_of(output), background=background)
    options |= caption_options(captions, captions_file, transcript, is_file=bool(files))
    job_for = partial(read_job, with_mask=wants_mask, options=options)
    speaker = Speaker.stand_in(model_id, pose_id)
    job_for(audio_url, speaker)
    sources = [
        recording_of(audio),
        *files,
        *pictures,
        *(path for path in (portrait, captions_file, transcript) if path),
    ]
    others = side_targets(output, mask_output, options)
    check_targets(output, others, sources, overwrite=overwrite)
    check_kept(server, output, mask_output, with_mask=wants_mask)
    with time_limit(timeout) as limit:
        async with (
            serve_portrait(portrait, server) if portrait else nullcontext(server) as server,
            track_videos(server, limit, [*files, *pictures]) as tracker,
            open_staging(staging, server, [audio_url], tracker.events) as stage,
        ):
            if portrait:
                tracker.events.emit(Info((CONSENT,)))
            else:
                speaker = await find_speaker(tracker.client, model_id, pose_id)
            if audio_url.startswith(wire.UPLOAD):
                await upload_recordings(tracker.client, files, tracker.events)
            task = await tracker.submit(job_for(await stage(audio_url), speaker), target=output, side_targets=others)
            await tracker.follow(task, overwrite=overwrite, timeout=limit.for_videos)


@_command(3, ASKING, "a2v voices", "a2v voices --local", synonyms=("voice", "speakers", "tts"))
async def voices(*, timeout: Timeout = None, server: ServerOptions = ServerOptions()) -> None:  # noqa: B008  # frozen
    """List the voices, if the server has any, with their voice_name, gender, language, tags and sample."""
    with time_limit(timeout) as limit:
        async with track_videos(server, limit) as tracker:
            tracker.events.emit(VoicesListed(await tracker.client.voices.list(), has_urls=not server.local))


@_command(
    4,
    SUBMITTING,
    'a2v say "Hello!" --model-id eva_a0008 --local -o hello.mp4',
    "a2v say - --model-id eva_a0008 --voice heart < speech.txt",
    usage="say [OPTIONS] TEXT",
    synonyms=("speak", "text"),
)
async def say(
    text: Annotated[
        str | None, Parameter(help="Text to speak, or - to read it from standard input.", allow_leading_hyphen=True)
    ] = None,
    /,
    *,
    text_file: Annotated[OptionalPath, Parameter(help="File with the text, in UTF-8 or UTF-16.")] = None,
    voice: Annotated[
        str | None,
        Parameter(help="Voice that speaks; see `a2v voices`. Default: the first voice of the character's gender."),
    ] = None,
    speaker: SpeakerOptions = SpeakerOptions(),  # noqa: B008  # frozen
    output: Target | None = None,
    captions: Captions = (),
    mask_output: Annotated[OptionalPath, Parameter(help="File to save the mask to; implies --with-mask.")] = None,
    overwrite: Overwrite = False,
    timeout: Timeout = None,
    video: VideoFlags = VideoFlags(),  # noqa: B008  # frozen
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """Make a video of a character or an avatar that speaks a text, wait for it, and save it.

    The text is synthesized once and the video submitted once; neither is repeated automatically. Without -o, the command prints the
    URL of the video.
    """
    server.check()
    spoken = read_text(text, text_file)
    ways = read_ways(captions)
    background, pictures = read_background(video.background, server)
    job_for = partial(
        read_job,
        with_mask=speaker.with_mask or mask_output is not None,
        options=video.options(container=container_of(output), background=background) | ways,
    )
    job_for("https://example.com/speech.wav", Speaker.stand_in(speaker.model_id, speaker.pose_id))
    check_speech(spoken, voice)
    others = side_targets(output, mask_output, ways)
    check_targets(output, others, [*pictures, *([text_file] if text_file else [])], overwrite=overwrite)
    check_kept(server, output, mask_output, with_mask=speaker.with_mask)
    with time_limit(timeout) as limit:
        async with track_videos(server, limit, pictures) as tracker:
            client = tracker.client
            found = await find_speaker(client, speaker.model_id, speaker.pose_id)
            job_for("https://example.com/speech.wav", found)
            voice = voice or await choose_voice(client, found.gender)
            with tracker.events.activity("synthesizing the text"):
                speech = await client.voices.generate(text=spoken, voice_name=voice)
            try:
                task = await tracker.submit(job_for(speech.url, found), target=output, side_targets=others)
            except A2VError as error:
                if server.keeps_videos and not isinstance(error, SubmissionUnknownError):
                    error.add_note("The text was synthesized. Submit the video without paying for that again:")
                    error.add_note(
                        f"  {program()} generate {shlex.quote(speech.url)}{speaker.flags}{video.flags}{captions_flag(ways)}{server.flags}"
                    )
                raise
            await tracker.follow(task, overwrite=overwrite, timeout=limit.for_videos)


@_command(5, ASKING, "a2v videos", "a2v videos --local --data-dir engine", synonyms=("list", "ls", "history"))
async def videos(*, timeout: Timeout = None, server: ServerOptions = ServerOptions()) -> None:  # noqa: B008  # frozen
    """List the videos of your account, with their status, and their URL or the reason why they failed.

    Servers with the first revision of the API have no such list.
    """
    server.check()
    if not server.keeps_videos:
        raise UsageError("the engine of --local starts without videos: add --data-dir DIR of an earlier command")
    with time_limit(timeout) as limit:
        async with track_videos(server, limit) as tracker:
            tracker.events.emit(VideosListed(await tracker.client.videos.list(), has_urls=not server.local))


@_command(5, ASKING, "a2v get VIDEO_ID", synonyms=("show", "status", "info"))
async def get(video_id: VideoId, /, *, timeout: Timeout = None, server: ServerOptions = ServerOptions()) -> None:  # noqa: B008  # frozen
    """Show a video, with its status, and its URL or the reason why it failed."""
    with time_limit(timeout) as limit:
        async with track_videos(server, limit) as tracker:
            video = TrackedVideo(video_id, video_id, snapshot=await tracker.client.videos.get(video_id))
            tracker.events.emit(VideoShown(video))
            if video.warning:
                tracker.events.emit(Warned(video.warning))


@_command(
    6,
    ASKING,
    "a2v watch VIDEO_ID VIDEO_ID --timeout 2h",
    usage="watch [OPTIONS] VIDEO_ID...",
    synonyms=("follow", "wait", "tail"),
)
async def watch(
    *video_ids: VideoId,
    timeout: Timeout = None,
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """Watch videos until their renders have ended, and print each change of status."""
    if not video_ids:
        raise UsageError("watch needs at least one video id")
    failed = []
    with time_limit(timeout) as limit:
        async with track_videos(server, limit) as tracker:
            for video_id in video_ids:
                tracker.expect(video_id)
            async with aclosing(tracker.client.videos.watch(*video_ids, timeout=limit.for_videos)) as snapshots:
                async for snapshot in snapshots:
                    tracker.record(snapshot)
                    failed += [snapshot] if snapshot.status is VideoStatus.FAILED else []
    if failed:
        raise VideoFailedError(f"{len(failed)} of {plural(len(set(video_ids)), 'video')} failed", video=failed[0])


@_command(7, ASKING, "a2v download VIDEO_ID -o hello.mp4", synonyms=("fetch", "save"))
async def download(
    video_id: VideoId,
    /,
    *,
    output: Target,
    mask_output: Annotated[OptionalPath, Parameter(help="File to save its mask to, if it has one.")] = None,
    captions: Annotated[
        Literal["files"] | None,
        Parameter(
            help="`files`: save its captions beside it, as .srt and .vtt, if it was submitted with --captions files."
        ),
    ] = None,
    overwrite: Overwrite = False,
    timeout: Timeout = None,
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """Save a video; wait for its render if necessary."""
    others = side_targets(output, mask_output, {"captions": captions})
    check_targets(output, others, overwrite=overwrite)
    with time_limit(timeout) as limit:
        async with track_videos(server, limit) as tracker:
            tracker.expect(video_id, target=output, side_targets=others)
            task = tracker.client.videos.task(video_id)
            await tracker.follow(task, overwrite=overwrite, timeout=limit.for_videos)


@_command(
    8,
    SUBMITTING,
    "a2v batch recordings/ --model-id eva_a0008 -o videos --local",
    "a2v batch jobs.csv -o videos --dry-run",
    "a2v batch jobs.csv -o videos --report report.csv",
    usage="batch [OPTIONS] -o DIR TABLE | FOLDER | RECORDING...",
    synonyms=("bulk", "jobs"),
)
async def batch(
    *sources: Annotated[
        str,
        Parameter(
            help="A table (.csv, .jsonl, .json or .xlsx) with the columns audio_url and model_id, and optionally name. Or, with"
            " --model-id or --pose-id: a folder of recordings, or any number of recordings."
        ),
    ],
    output: Annotated[Output, Parameter(help="Folder for the videos; created if necessary.", metavar="DIR")],
    speaker: SpeakerOptions = SpeakerOptions(),  # noqa: B008  # frozen
    video: VideoFlags = VideoFlags(),  # noqa: B008  # frozen
    container: Annotated[
        Literal["mp4", "webm", "mov", "webp", "gif"] | None,
        Parameter(help="Format of the files, as for `a2v generate`: mp4 (default), webm, mov, webp or gif."),
    ] = None,
    captions: Captions = (),
    timeout: Timeout = None,
    flags: BatchFlags = BatchFlags(),  # noqa: B008  # frozen
    staging: StagingOptions = StagingOptions(),  # noqa: B008  # frozen
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """Make and save a video for each row of a table, or for each recording.

    Nothing is submitted twice: after an interruption or a crash, run the same command again to continue. An audio_url may be
    the path of a file, relative to the table; the hosted service then needs --stage-to. Each video is named after its recording,
    unless the table has a column name.
    """
    # Batches have much code of their own.
    from a2v.cli.batch_manifest import BatchSource  # noqa: PLC0415
    from a2v.cli.batch_run import run_batch  # noqa: PLC0415

    source = BatchSource.of(sources, speaker, with_captions=bool(captions))
    # The folder as the disk spells it (NFC or NFD): under another spelling there would be no journal, and all would be
    # submitted again.
    with time_limit(timeout):
        await run_batch(source, find_existing(output), flags, staging, server, (video, container, captions))


@_command(
    9,
    OFFLINE,
    "a2v manifest recordings/ --model-id eva_a0008 > jobs.csv",
    name="manifest",
    usage="manifest [OPTIONS] FOLDER | RECORDING...",
    synonyms=("table",),
)
def manifest_table(
    *sources: Annotated[str, Parameter(help="Folders of recordings, recordings, or patterns such as '*.wav'.")],
    output: Annotated[
        OptionalPath, Parameter(name=["--output", "-o"], help="File to write; default: standard output.")
    ] = None,
    speaker: SpeakerOptions = SpeakerOptions(),  # noqa: B008  # frozen
    overwrite: Overwrite = False,
    as_json: Annotated[AsJson, Parameter(help="Write a JSON array instead of CSV.")] = False,
) -> None:
    """Write a table of recordings, to edit and pass to `a2v batch`.

    Paths in the table are relative to its folder, or to the current folder if it is written to standard output.
    """
    from a2v.cli.recording_files import find_recordings, table_among, write_table  # noqa: PLC0415  # loads what reads tables

    if not sources:
        raise UsageError("manifest needs a folder or files of recordings")
    if table := table_among(sources):
        raise UsageError(f"{table} is a table already: pass it to `a2v batch`")
    if output and output.suffix.lower() != (extension := ".json" if as_json else ".csv"):
        raise UsageError(f"--output: {output} must end in {extension}")
    if output and output.exists() and not overwrite:
        raise UsageError(f"--output: {output} exists; add --overwrite to replace it")
    recordings = find_recordings(sources)
    write_table(recordings, speaker, output, as_json=as_json)
    for notice in recordings.notices:
        eprint(f"a2v: {notice}", colour="yellow")


@_command(10, OFFLINE, "a2v journal videos/a2v-batch.db", synonyms=("log", "progress"))
def journal(
    path: Annotated[FilePath, Parameter(help="Journal of a batch.")],
    /,
    *,
    as_json: Annotated[AsJson, Parameter(help="Print one JSON array.")] = False,
    verbose: Annotated[Verbose, Parameter(help="Log to standard error what the command does.")] = 0,
) -> None:
    """Show the state of each job of a batch, also while the batch runs."""
    from a2v.cli.batch_run import show_journal  # noqa: PLC0415  # as above

    log_command(verbose)
    show_journal(find_existing(path), as_json=as_json)


@_command(
    11, CHECKING, "a2v serve", "a2v serve --data-dir engine --like-hosted", synonyms=("server", "start", "engine")
)
def serve(
    *,
    settings: EngineOptions = EngineOptions(),  # noqa: B008  # frozen
    token_file: TokenFile = None,
    allow_remote: Flag = False,
    log_json: Flag = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Run an engine until Ctrl-C: a server with the API of the hosted service that renders on this machine.

    Args:
        settings: The settings of the engine.
        token_file: File with the token that clients must send, or - for standard input. Default: A2V_TOKEN, or a random
            token, which is printed.
        allow_remote: Confirm a --host that other machines can reach.
        log_json: Log each request and each change of a video as one line of JSON.
        as_json: Print one JSON object when the engine is ready: base_url and token.
        verbose: Log each request too; -vv: also each step of the HTTP requests that fetch recordings.
    """
    with needs_extra():
        from a2v import engine  # noqa: PLC0415  # an extra

        run_engine, settings_of = engine.serve, engine.Settings
        if settings.dask:
            from a2v.engine import dask_renderer  # noqa: F401, PLC0415  # before the log is set up: Dask sets up its own
    token = Secret(read_token(token_file))
    engine_settings = settings_of(token=token, **asdict(settings))
    log_to_stderr(as_json=log_json, verbose=verbose)
    renderer = open_renderer(as_json=as_json)

    def say(text: str, level: int) -> None:
        if log_json:  # programs read each line as JSON
            logging.getLogger("a2v.engine").log(level, text)
        else:
            eprint(f"a2v: {text}")

    if token.value and len(token.value) < _SAFE_TOKEN:
        say(f"the token is short enough to be guessed: use one of at least {_SAFE_TOKEN} characters", logging.WARNING)

    def ready(base_url: str) -> None:
        used = Secret(engine_settings.token)
        renderer.render(EngineReady(base_url, used, is_secret=bool(token.value), is_kept=bool(settings.data_dir)))

    run_engine(engine_settings, allow_remote=allow_remote, ready=ready)
    kept = "unfinished renders continue when it starts again with the same --data-dir"
    with suppress(BrokenPipeError):  # it has stopped in any case
        say(f"the engine has stopped; {kept if settings.data_dir else 'its videos are deleted'}", logging.INFO)


@_command(
    12,
    CHECKING,
    "a2v mcp --local -o videos",
    synonyms=("assistant", "agent", "tools"),
)
async def mcp(
    *,
    output: Annotated[Output, Parameter(help="The only folder in which videos are saved.", metavar="DIR")],
    server: ServerOptions = ServerOptions(),  # noqa: B008  # frozen
) -> None:
    """Let an assistant make videos: run a Model Context Protocol server on standard input and output.

    Its tools list characters and voices, make a video, check it, wait for it and save it. The same request is submitted once.
    """
    with needs_extra():
        from a2v.cli.mcp_server import make_server  # noqa: PLC0415  # an extra
    log_command(server.verbose)
    async with connect(server, []) as client:
        await make_server(client, output.absolute()).run_stdio_async()


@_command(12, CHECKING, "a2v doctor", "a2v doctor --local", synonyms=("check", "test", "diagnose"))
async def doctor(
    *,
    local: Flag = False,
    base_url: Url = None,
    token_file: TokenFile = None,
    insecure: Flag = False,
    budget: Annotated[str | None, Parameter(metavar="PATH|URL")] = None,
    characters: OptionalFolder = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Check that the server accepts your token or, with --local, that this machine can render.

    Without --local, the server is checked if a token or a server is set, and this machine otherwise. A shared budget
    is checked too. The only request to the server is for its characters. To check this machine, a video of a third of a second is
    rendered. Exits with 1 if there is a problem.

    Args:
        local: Check this machine, not a server.
        base_url: URL of the server. Default: A2V_BASE_URL, or the hosted service.
        token_file: File with the token, or - for standard input. Default: the token in A2V_TOKEN.
        insecure: Allow http:// to private addresses.
        budget: Rate limit shared with other processes, whose file or server is checked. Default: A2V_BUDGET.
        characters: Folder of your own characters, whose files are checked too.
        as_json: Print one JSON object: ok, and the name, state (ok, note or problem) and words of each check.
        verbose: Log to standard error what the command does; -vv: also each step of each HTTP request.
    """
    from a2v import _diagnostics  # noqa: PLC0415  # needed by this command only

    shared = Secret(budget)
    elsewhere = given_options({"base_url": base_url, "token_file": token_file, "insecure": insecure, "budget": budget})
    del budget  # its URL may have a password, and error reports may show local variables
    if local and elsewhere:
        raise UsageError(f"--local checks this machine: remove {elsewhere}")
    log_command(verbose)
    checks = _diagnostics.check_installation()
    if characters:
        checks += await _diagnostics.check_characters(characters)
    names_server = base_url or token_file or os.environ.get("A2V_BASE_URL") or os.environ.get("A2V_TOKEN")
    if local or not names_server:
        checks += await _diagnostics.check_rendering(characters)
        checks += [] if local else [_diagnostics.NO_TOKEN, *await _diagnostics.check_budget(shared)]
    else:
        checks += await _check_server(base_url, token_file, shared, insecure=insecure)
    open_renderer(as_json=as_json).render(ChecksCompleted(checks))
    if problems := [check.name for check in checks if check.state == "problem"]:
        raise A2VError(f"{len(problems)} of {len(checks)} checks found a problem: {', '.join(dict.fromkeys(problems))}")


async def _check_server(base_url: str | None, token_file: str | None, budget: Secret, *, insecure: bool) -> list[Check]:
    from a2v._diagnostics import Check, check_access  # noqa: PLC0415  # needed by this command only

    token, unreadable = Secret(None), []
    try:
        token = Secret(read_token(token_file))
    except UsageError as error:
        unreadable = [Check("token", "problem", str(error))]
    access = await check_access(token, token_file or "A2V_TOKEN", base_url, insecure=insecure, budget=budget)
    return [*unreadable, *(access[1:] if unreadable else access)]


character: App = App(
    name="character",
    help="Generate a character of your own, or check its file.",
    sort_key=9,
    help_formatter=Formatter(),
)
app.command(character)


@character.command(help_epilogue=epilogue(CHECKING, "a2v character new nora -o characters --seed 7"))
def new(
    name: Annotated[str, Parameter(help="Name of the character, which becomes its model_id.")],
    /,
    *,
    output: Annotated[Output, Parameter(metavar="DIR", help="Folder for the file; created if necessary.")] = Path(),
    seed: Annotated[
        OptionalInteger, Parameter(help="Seed of the generator. Default: a random one, which is recorded in the file.")
    ] = None,
    like: Annotated[
        OptionalPathOrText,
        Parameter(help="Character to resemble: the model_id of a built-in one, or the file of one of yours."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[AsJson, Parameter(help="Print the paths of the files as a JSON array.")] = False,
) -> None:
    """Generate a character, and write its file, NAME.toml, and a preview picture, NAME.preview.png.

    Edit the file to change the character, and pass its folder as --characters.
    """
    made = new_character(name, output, seed=seed, like=like, overwrite=overwrite)
    _show_files(made, as_json=as_json)


@character.command(
    usage="Usage: a2v character check [OPTIONS] FILE...",
    help_epilogue=epilogue(CHECKING, "a2v character check characters/nora.toml"),
)
def check(
    *files: Annotated[FilePath, Parameter(help="Files of characters: NAME.toml, or the picture of a portrait.")],
    as_json: Annotated[AsJson, Parameter(help="Print the paths of the pictures as a JSON array.")] = False,
) -> None:
    """Check the files of characters, report all problems, and draw a preview picture beside each valid file."""
    if not files:
        raise UsageError("character check needs at least one file")
    _show_files(check_characters(files), as_json=as_json)


def _show_files(paths: Sequence[Path], *, as_json: bool) -> None:
    # With --json, standard output is one array.
    print(json.dumps([str(path) for path in paths]) if as_json else "\n".join(map(str, paths)))  # the output


app.register_install_completion_command(help="Install shell completion for bash, zsh, fish or PowerShell.")


def run(arguments: list[str]) -> int:
    """Run a command.

    Args:
        arguments: The arguments of the program, without its name.

    Returns:
        The exit code.
    """
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The encoding of a pipe may lack a character of a name.
        sys.stdout.reconfigure(errors="backslashreplace")
    _interrupt_on_signals()
    try:
        _refuse_empty(arguments)
        _run_command(arguments)
    except BrokenPipeError as error:
        # The reader of stdout has gone, for example `head`. The notes say what continues on the server.
        eprint(*getattr(error, "__notes__", ()))
        # Otherwise the interpreter fails when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except (A2VError, CycloptsError, UsageError, CommandTimeoutError, OSError) as error:
        eprint(
            f"a2v: {_message(error)}",
            *map("  {}".format, _row_errors(error)),
            *getattr(error, "__notes__", ()),
            colour="red",
        )
        if isinstance(error, AuthenticationError):
            eprint("Check the token: it is that of A2V_TOKEN, or of --token-file FILE.")
        return _exit_code(error)
    return 0


def _run_command(arguments: list[str]) -> None:
    """Call a command, in an event loop that does not wait for pending name lookups when it is closed."""
    try:
        command, bound, _ = app.parse_args(arguments)
    except UnknownCommandError as error:
        if not arguments[0].startswith("-"):
            raise
        # The commands have different options, so only the command knows which of these words is the value of one.
        name = next((word for word in arguments if word in app), "COMMAND")
        raise UsageError(f"options come after the command: a2v {name} … {arguments[0]}") from error
    if inspect.iscoroutinefunction(command):
        with asyncio.Runner(loop_factory=_threads.new_event_loop) as runner:
            runner.run(command(*bound.args, **bound.kwargs))
    else:
        command(*bound.args, **bound.kwargs)


def _open_closed_streams() -> None:
    """Replace standard streams that the caller has closed, as ``2>&-`` does, by the null device: Python sets them to ``None``."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # until the exit


def _interrupt_on_signals() -> None:
    """Treat SIGTERM, and SIGHUP when the terminal closes, like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not set by nohup

        def hang_up(*_: object) -> None:
            # Both the terminal and the shell may send it, and a second interruption would skip the cleanup.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.raise_signal(signal.SIGINT)

        signal.signal(signal.SIGHUP, hang_up)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse empty arguments: an empty path would mean the current folder, an empty option its default.

    Raises:
        UsageError: An argument is empty.
    """
    for place, argument in enumerate(arguments):
        if not argument or re.fullmatch(r"--[a-z-]+=", argument):
            before = argument[:-1] or (arguments[place - 1] if place else "a2v")
            raise UsageError(f"empty argument after {before}: is a variable not set?")


def _exit_code(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return USAGE
    if isinstance(error, (UsageError, CycloptsError, ConfigurationError, ManifestError)):
        return USAGE
    if isinstance(error, SubmissionUnknownError):
        return UNKNOWN
    return TIMED_OUT if isinstance(error, (WaitTimeoutError, CommandTimeoutError)) else FAILED


def _message(error: Exception) -> str:
    if isinstance(error, WaitTimeoutError):
        # Without the library's hint that the render continues: with --local it does not, and the notes say so.
        return f"video {error.video_id} has not ended after {error.waited:.1f} s"
    if isinstance(error, UnusedCliTokensError):
        unused = " ".join(map(shlex.quote, error.unused_tokens or ()))
        return f"unexpected argument: {unused}. Each option takes one value; repeat the option to pass more"
    message = str(error).strip() or type(error).__name__
    if isinstance(error, MissingArgumentError):
        option = error.keyword or ""
        following = next((after for word, after in pairwise(error.root_input_tokens or ()) if word == option), "")
        return f"{option} does not accept - as its value" if following == "-" else message + _dash_hint(following)
    if isinstance(error, UnknownOptionError):
        # A letter of the word if others are options, as -v is.
        unknown = (error.token.keyword or error.token.value).lstrip("-")
        message += next(
            filter(None, (_dash_hint(word) for word in error.root_input_tokens or () if unknown in word)), ""
        )
    message = keywords_as_options(message) if isinstance(error, ConfigurationError) else flags_as_options(message)
    # Its row errors follow, one per line.
    return message.partition("\n")[0] if isinstance(error, ManifestError) else message


def _dash_hint(word: str) -> str:
    """Say how to pass a file whose name begins with a dash, if a word that was taken for an option may be one."""
    looks_like_file = word.startswith("-") and not word.startswith("--") and Path(word).suffix
    is_file = word.startswith("-") and os.path.lexists(word)
    return f" If {word} is a file, write {quote_path(word)}." if is_file or looks_like_file else ""


def _row_errors(error: Exception) -> tuple[RowError, ...]:
    return error.faults if isinstance(error, ManifestError) else ()
