"""What reaches the terminal."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from a2v import AsyncA2V, Character, Job, Pace, Progress, Video, VideoStatus
from a2v.cli.batch_run import progress_events
from a2v.cli.commands import run
from a2v.cli.events import (
    BatchProgress,
    EventStream,
    RequestsPaced,
    TrackedVideo,
    VideoChanged,
    VideoDownloading,
    VideoExpected,
    VideoSaved,
)
from a2v.cli.renderers import TerminalRenderer
from a2v.cli.terminal import clean, plural
from a2v.cli.tracking import VideoTracker
from a2v.testing import Reply, Service
from tests.sets import one_by_default
from tests.terminal import on_terminal

HOSTILE = "\x1b]0;owned\x07\x1b[2J \u202eevil\u200b\u2066 \x9b31m \ufeff\u2028\r\n\t end"

STEERING = ("\x1b]0;", "\x1b[2J", "\x07", "\u202e", "\u2066", "\u200b", "\x9b")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Éva 日本 👋 – ok", "Éva 日本 👋 – ok"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\r\nb\tc\x7f\x9b", "a\\x0d\\x0ab\\x09c\\x7f\\x9b"),
        ("\u202e\u2066\u200b\u200d\ufeff\u2028\u00ad", "\\u202e\\u2066\\u200b\\u200d\\ufeff\\u2028\\xad"),
        ("\u3164\U000e0041\udc80", "\\u3164\\U000e0041\\udc80"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_clean(text, shown):
    assert clean(text) == shown


@pytest.mark.parametrize(("how_many", "said"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (21, "21 jobs")])
def test_numbers_and_their_nouns_agree(how_many, said):
    assert plural(how_many, "job") == said


def test_clean_is_short():
    assert len(clean("x" * 1_000_000)) < 3000


@pytest.fixture
def hostile(service, tmp_path):
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\nm,https://example.com/a.wav\n")
    service.characters = [
        Character(**dict.fromkeys(("model_id", "name", "display_name", "gender", "preview_url"), HOSTILE))
    ]
    service.add_video("v1", "error", message=HOSTILE)
    service.add_video("v2", HOSTILE)
    service.refuse("video.generate", 400, HOSTILE)
    return service


COMMANDS = [
    ["characters"],
    ["get", "v1"],
    ["get", "v2"],
    ["watch", "v1"],
    ["generate", "https://example.com/a.wav", "--model-id", "m", "-o", "x.mp4"],
    ["batch", "jobs.csv", "-o", "videos"],
]


@pytest.mark.parametrize("arguments", [*COMMANDS, *([*command, "--json"] for command in COMMANDS)])
def test_plain_lines_and_json_are_harmless(here, hostile, arguments):
    _, out, errors = here(*arguments)

    printed = out + errors
    assert "owned" in printed
    assert {c for c in printed if unicodedata.category(c) in ("Cc", "Cf", "Zl")} <= {"\n", "\t"}


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
@pytest.mark.parametrize("arguments", one_by_default(*COMMANDS[::-1]))
def test_a_terminal_is_not_steered_by_the_server(hostile, environment, tmp_path, arguments):
    _, got = on_terminal(*arguments, environment=environment, cwd=tmp_path)

    assert "owned" in got
    assert not any(steering in got for steering in STEERING)


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_terminal_is_not_steered_by_an_id(service, environment, tmp_path):
    service.add_video(HOSTILE, "pending", "error", message=HOSTILE)
    service.reply("video.generate", Reply.success({"video_id": HOSTILE}))

    _, got = on_terminal(*COMMANDS[-2], environment=environment, cwd=tmp_path)

    assert "queued" in got
    assert not any(steering in got for steering in STEERING)


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_terminal_shows_progress_and_then_the_result(service, environment, tmp_path):
    service.add_video("v1", "pending", "in_progressing", "finished")

    arguments = ["generate", "https://example.com/a.wav", "--model-id", "m", "-o", "hello.mp4"]
    code, got = on_terminal(*arguments, environment=environment, cwd=tmp_path)

    assert code == 0
    # The moving lines are redrawn in place; the result is the last thing that stays.
    assert got.index("queued") < got.index("rendering") < got.index("saved  hello.mp4")
    assert "\x1b[?25h" in got[got.index("\x1b[?25l") :], "the cursor comes back"


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_batch_on_a_terminal(service, environment, tmp_path):
    service.poll_statuses = ["finished"]
    service.fail("no speech", nth=2)
    rows = "".join(f"m,https://example.com/{name}.wav,{name}\n" for name in ("one", "two", "three"))
    (tmp_path / "jobs.csv").write_text(f"model_id,audio_url,name\n{rows}")

    code, got = on_terminal("batch", "jobs.csv", "-o", "videos", environment=environment, cwd=tmp_path)
    _, journal = on_terminal("journal", "videos/a2v-batch.db", environment=environment, cwd=tmp_path)

    assert code == 1
    assert "queued" in got, "the display moves"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", got)
    assert "✓ one  done  videos/one.mp4" in plain
    assert re.search(r"2 done, 1 failed · \d+ s · videos in videos\r\n", plain)
    assert plain.index("✗ two  failed") < plain.index("2 done, 1 failed") < plain.index("1 of 3 jobs is not done")
    assert "\x1b[?25h" in got[got.index("\x1b[?25l") :], "the cursor comes back"
    rows = re.sub(r"\x1b\[[0-9;]*m", "", journal).splitlines()
    assert [row.split()[:2] for row in rows[1:4]] == [
        ["one", "done"],
        ["two", "failed"],
        ["three", "done"],
    ]
    assert rows[-1] == "3 jobs: 2 done, 1 failed"


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_batch_on_a_terminal_shows_how_much_of_each_file_there_is(service, environment, tmp_path):
    service.poll_statuses = ["finished"]
    (tmp_path / "jobs.csv").write_text("model_id,audio_url,name\nm,https://example.com/a.wav,first\n")

    with half_a_file() as (url, send_the_rest):
        service.reply("video.get", Reply.success({"video_id": "v1", "status": "finished", "video_url": url}))
        code, got = on_terminal(
            *("batch", "jobs.csv", "-o", "videos"),
            environment=environment,
            cwd=tmp_path,
            on_output=lambda text: "downloading 50 % of 2.0 MB" in text and send_the_rest(),
        )

    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", got)
    assert re.search(r"first\.mp4 +downloading 50 % of 2\.0 MB", plain)
    assert "✓ first  done" in plain


@contextmanager
def half_a_file() -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve a video whose second half is sent when the test says so. Yields its URL and the function that does."""
    content, rest = b"\0\0\0\x18ftypisom" + bytes(2_000_000 - 12), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:1_000_000])
            rest.wait(60)
            self.wfile.write(content[1_000_000:])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v.mp4", rest.set
        finally:
            rest.set()
            server.shutdown()


def test_a_terminal_shows_what_is_done_before_there_is_a_video():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    renderer = TerminalRenderer(console)
    events = EventStream(renderer.render, "waiting for the server")

    with events.activity("uploading my\x1b]0;owned\x07.flac"), renderer:
        pass
    with renderer:
        pass

    first, _, second = console.file.getvalue().partition("waiting for the server")
    assert "uploading my" in first
    assert "\x1b]0;" not in first
    assert "uploading" not in second


def test_an_interruption_while_the_display_of_a_batch_ends_is_not_lost():
    looking, ending = asyncio.Event(), asyncio.Event()

    class Batch:
        progress = Progress(total=1, waiting=0, under_way=1, done=0, failed=0, unknown=0)

        async def pace(self) -> None:
            try:
                looking.set()
                await asyncio.sleep(60)
            finally:
                ending.set()
                await asyncio.sleep(0.01)

    async def show() -> None:
        async with progress_events(Batch(), EventStream(lambda _: None, "")):
            await looking.wait()

    async def main() -> None:
        shown = asyncio.create_task(show())
        await ending.wait()
        shown.cancel()
        await asyncio.wait([shown])
        assert shown.cancelled()

    asyncio.run(main())


def test_many_downloads_do_not_fill_the_terminal() -> None:
    progress = Progress(total=9, waiting=0, under_way=9, done=0, failed=0, unknown=0)
    downloads = {Path(f"videos/clip{number}.mp4"): (1000 * number, None) for number in range(6)}
    terminal = io.StringIO()
    with TerminalRenderer(Console(file=terminal, force_terminal=True, width=120)) as renderer:
        renderer.render(BatchProgress(progress, Pace(limit=30, left=12, next_in=None), downloads))
        renderer._live.refresh()
    assert "clip3.mp4" in terminal.getvalue()
    assert "downloading 3.0 kB" in terminal.getvalue()
    assert "clip4.mp4" not in terminal.getvalue()
    assert "… and 2 more downloads" in terminal.getvalue()


def shown(progress: Progress, pace: Pace) -> str:
    """What the display of a batch shows on a terminal."""
    terminal = io.StringIO()
    with TerminalRenderer(Console(file=terminal, force_terminal=True, width=120)) as renderer:
        renderer.render(BatchProgress(progress, pace))
        renderer.render(BatchProgress(attrs.evolve(progress, waiting=0, done=progress.waiting), pace))
    return terminal.getvalue()


def test_during_an_outage_the_display_says_so_instead_of_an_estimate() -> None:
    progress = Progress(total=3, waiting=1, under_way=2, done=0, failed=0, unknown=0)
    pace = Pace(limit=30, left=12, next_in=4.0)
    usual = shown(progress, pace)
    assert "to go" in usual
    assert "12 of this minute's 30 requests left" in usual
    assert "no request" not in shown(progress, attrs.evolve(pace, failing_for=1.0))
    outage = shown(progress, attrs.evolve(pace, failing_for=45.0))
    assert "no request has succeeded for 45 s, retrying" in outage
    assert "to go" not in outage


def test_a_command_for_one_video_shows_an_outage_too() -> None:
    terminal = io.StringIO()
    with TerminalRenderer(Console(file=terminal, force_terminal=True, width=120)) as renderer:
        renderer.render(VideoExpected(TrackedVideo("v0", "v0", None, None)))
        renderer.render(RequestsPaced(Pace(limit=30, left=12, next_in=4.0, failing_for=1.0)))
        renderer._live.refresh()
        assert "no request" not in terminal.getvalue()
        renderer.render(RequestsPaced(Pace(limit=30, left=12, next_in=4.0, failing_for=45.0)))
        renderer._live.refresh()
    assert "no request has succeeded for 45 s, retrying" in terminal.getvalue()


def test_the_display_below_a_result_is_up_to_date() -> None:
    terminal = io.StringIO()
    rendering, finished = (
        Video(video_id="v0", status=status) for status in (VideoStatus.IN_PROGRESS, VideoStatus.FINISHED)
    )
    with TerminalRenderer(Console(file=terminal, force_terminal=True, width=120, color_system=None)) as renderer:
        for video_id in ("v0", "v1"):
            renderer.render(VideoChanged(TrackedVideo(video_id, video_id, Path("v0.mp4"), snapshot=rendering)))
        renderer._live.refresh()
        renderer.render(VideoSaved(TrackedVideo("v0", "v0", Path("v0.mp4"), snapshot=finished, path=Path("v0.mp4"))))
    _, result, display = terminal.getvalue().partition("✓ v0  saved")
    assert result
    assert "v1" in display
    assert "v0  rendering" not in display


@pytest.mark.anyio
async def test_a_download_shows_how_much_of_the_file_there_is(tmp_path) -> None:
    content, events = bytes(3_000_000), []
    service = Service(content=content)
    service.add_video("v0")
    async with AsyncA2V("token", transport=service.transport()) as client:
        tracker = VideoTracker(client, EventStream(events.append, "starting"))
        tracker.expect("v0", target=tmp_path / "v0.mp4")
        await tracker.follow(client.videos.task("v0"))
    progress = [event.video for event in events if isinstance(event, VideoDownloading)]
    assert (progress[-1].received, progress[-1].size) == (len(content), len(content))

    terminal = io.StringIO()
    with TerminalRenderer(Console(file=terminal, force_terminal=True, width=120)) as renderer:
        for received, size in ((750_000, 3_000_000), (750_000, None)):
            renderer.render(VideoDownloading(attrs.evolve(progress[-1], received=received, size=size)))
            renderer._live.refresh()
    assert "downloading 25 % of 3.0 MB" in terminal.getvalue()
    assert "downloading 750.0 kB" in terminal.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_display_of_a_batch_names_each_step_and_fits_the_terminal(width) -> None:
    terminal = io.StringIO()
    progress = Progress(total=60, waiting=20, under_way=30, done=8, failed=1, unknown=0, lost=1, rendering=2, saving=3)
    with TerminalRenderer(Console(file=terminal, force_terminal=True, width=width, color_system=None)) as renderer:
        renderer.render(BatchProgress(progress, Pace(limit=30, left=None, next_in=0.5)))
        renderer._live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    for step in ("done 8", "failed 1", "lost 1", "downloading 3", "rendering 2", "queued 25", "not submitted 20"):
        assert step in text
    assert "next request" not in text  # which is at once
    assert max(map(len, text.replace("\r", "\n").splitlines())) <= width


@pytest.mark.anyio
async def test_a_batch_counts_what_is_queued_rendered_and_saved(tmp_path) -> None:
    service = Service()
    jobs = [Job("eva_a0008", f"https://example.com/{number}.wav") for number in range(3)]
    seen = []
    service.poll_statuses = ["pending", "in_progressing", "finished"]
    async with (
        AsyncA2V("token", transport=service.transport()) as client,
        client.batch(jobs, save_to=tmp_path / "videos") as batch,
    ):
        service.reply("video.list", lambda call: seen.append(batch.progress) or service.default_reply(call), times=None)
        async for _ in batch:
            seen += [batch.progress]
    assert any(progress.under_way == 3 and progress.rendering == 0 for progress in seen)
    assert any(progress.rendering == 3 for progress in seen)
    assert all(progress.rendering + progress.saving <= progress.under_way for progress in seen)
    assert (seen[-1].done, seen[-1].rendering, seen[-1].saving) == (3, 0, 0)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "is_red"),
    [
        (_Terminal, {}, True),
        (_Terminal, {"NO_COLOR": "1"}, False),
        (_Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_errors_are_marked_in_red_on_terminals_with_colours(stream, variables, is_red, monkeypatch) -> None:
    for name, value in ({"TERM": "xterm", "WT_SESSION": "1", "NO_COLOR": ""} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", stream())
    assert run(["get", "a", "--no-such-option"]) == 2
    first = sys.stderr.getvalue().splitlines()[0]
    assert first.startswith("\x1b[31ma2v:\x1b[0m " if is_red else "a2v: ")
    assert ("\x1b" in first.removeprefix("\x1b[31ma2v:\x1b[0m")) is False
