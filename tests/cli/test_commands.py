"""What each command prints and with which code it exits, against a server that follows a script."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from a2v import Character
from a2v.testing import Reply
from tests.sets import one_by_default

URL = "/files/v1.mp4?signature=s3cret"
TAKEN = ["pending", "in_progressing", "finished"]


def tokens(service) -> set[str | None]:
    return {call.headers.get("authorization") for call in service.calls if call.name != "file"}


def lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_characters(a2v, service):
    service.characters = [
        Character(model_id="eva_a0008", name="Eva", display_name="Eva 01", gender="female", preview_url="http://p")
    ]

    done = a2v("characters")

    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done.stdout) == [["eva_a0008", "Eva 01", "female", "http://p"]]
    assert tokens(service) == {"Bearer canary-token-1234"}


def test_characters_as_json_are_one_document(a2v, service):
    shown = {"model_id": "m", "name": "n", "display_name": "d", "gender": "g", "preview_url": "p"}
    service.characters = [Character(**shown)]

    assert json.loads(a2v("characters", "--json").stdout) == [shown]


def test_a_name_that_the_encoding_of_the_output_lacks(a2v, service, environment):
    service.characters = [Character(model_id="m", name="Zoë 日本")]
    environment["PYTHONIOENCODING"] = "latin-1"

    done = a2v("characters", encoding="latin-1")

    assert (done.returncode, done.stdout) == (0, "m\tZoë \\u65e5\\u672c\n")


def test_get(a2v, service):
    service.add_video("v1", "finished")

    assert lines(a2v("get", "v1").stdout) == [["v1", "finished", service.files_url + URL]]


def test_get_of_a_failed_video_succeeds(a2v, service):
    service.add_video("v1", "error", message="the recording is silent")

    done = a2v("get", "v1")

    assert (done.returncode, lines(done.stdout)) == (0, [["v1", "error", "the recording is silent"]])


def test_get_as_json(a2v, service):
    service.add_video("v1", "dreaming")

    assert json.loads(a2v("get", "v1", "--json").stdout) == {
        "video_id": "v1",
        "status": "dreaming",
        "video_url": None,
        "mask_video_url": None,
        "captions_url": None,
        "message": None,
        "path": None,
        "mask_path": None,
        "captions_paths": [],
    }


def test_watch_shows_each_change_of_each_video_once(a2v, service):
    service.add_video("v1", "pending", "pending", "finished")
    service.add_video("v2", "in_progressing", "finished")

    done = a2v("watch", "v1", "v2", "v1")

    assert done.returncode == 0
    words = [(video_id, word) for video_id, word, *_ in lines(done.stdout)]
    assert sorted(words) == [("v1", "finished"), ("v1", "pending"), ("v2", "finished"), ("v2", "in_progressing")]


def test_watch_fails_if_a_render_failed_but_follows_the_others_to_their_end(a2v, service):
    service.add_video("v1", "error", message="no speech")
    service.add_video("v2", "pending", "finished")

    done = a2v("watch", "v1", "v2")

    assert done.returncode == 1
    assert ["v1", "error", "no speech"] in lines(done.stdout)
    assert done.stdout.splitlines()[-1].startswith("v2\tfinished")
    assert done.stderr == "a2v: 1 of 2 videos failed\n"


def test_generate_saves_the_video(a2v, service, tmp_path):
    done = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "videos/hello.mp4")

    assert (done.returncode, done.stderr) == (0, "")
    assert [row[1] for row in lines(done.stdout)] == [*TAKEN, "saved"]
    assert lines(done.stdout)[-1] == ["v1", "saved", str(tmp_path / "videos/hello.mp4")]
    assert (tmp_path / "videos/hello.mp4").read_bytes() == b"video of v1"
    (submit,) = service.submissions
    assert (submit.model_id, submit.audio_url) == ("eva_a0008", "https://example.com/hello.wav")
    assert json.loads(service.seen("video.generate")[0].body).keys() == {"model_id", "audio_url"}


def test_generate_without_a_file_prints_the_url(a2v, service):
    done = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008")

    assert lines(done.stdout)[-1] == ["v1", "finished", service.files_url + URL]


def test_generate_as_json_is_a_line_for_each_change(a2v, service, tmp_path):
    done = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "hello.mp4", "--json")

    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(look["status"], look["path"]) for look in looks] == [
        *((word, None) for word in TAKEN),
        ("finished", str(tmp_path / "hello.mp4")),
    ]


def test_generate_prints_why_a_render_failed(a2v, service, tmp_path):
    service.poll_statuses = ["pending", "finished"]
    service.fail("the recording is silent")

    done = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "hello.mp4")

    assert done.returncode == 1
    assert done.stderr == "a2v: video v1 failed: the recording is silent\n"
    assert list(tmp_path.iterdir()) == []


def test_a_refused_submission(a2v, service):
    service.refuse("video.generate", 400, "no such character")

    done = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "hello.mp4")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "a2v: no such character (HTTP 400, code 400)\n"


def test_a_submission_that_may_have_arrived_has_a_code_of_its_own(a2v, service):
    service.reply("video.generate", Reply(502, "bad gateway"))

    done = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "hello.mp4")

    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert len(service.seen("video.generate")) == 1


def test_the_timeout_expires_but_the_render_continues(here, service):
    service.poll_statuses = ["pending"]

    url, model_id = "https://example.com/hello.wav", "eva_a0008"
    code, _, errors = here(
        "generate", url, "--model-id", model_id, "-o", "my video.mp4", "--timeout", "3", "--base-url", service.files_url
    )

    assert code == 4
    assert "--timeout expired after 3 s while waiting for video v1" in errors
    assert f"  a2v watch v1 --base-url {service.files_url}\n" in errors
    assert f"  a2v download v1 -o 'my video.mp4' --base-url {service.files_url}\n" in errors


def test_a_video_that_cannot_be_saved_can_be_fetched_later(a2v, service):
    service.poll_statuses = ["finished"]
    service.refuse("file", 404, times=None)

    done = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "hello.mp4")

    assert done.returncode == 1
    assert "  a2v download v1 -o hello.mp4\n" in done.stderr
    assert "a2v watch" not in done.stderr


def test_download(a2v, service, tmp_path):
    service.add_video("v1", "in_progressing", "finished")

    assert a2v("download", "v1", "-o", "v.mp4").returncode == 0
    assert (tmp_path / "v.mp4").read_bytes() == b"video of v1"


def test_nothing_is_replaced_unless_asked(a2v, service, tmp_path):
    service.add_video("v1", "finished")
    (tmp_path / "v.mp4").write_text("mine")

    refused = a2v("download", "v1", "-o", "v.mp4")
    unpaid = a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "v.mp4")

    assert (refused.returncode, unpaid.returncode) == (2, 2)
    assert "--overwrite" in refused.stderr
    assert ((tmp_path / "v.mp4").read_text(), service.seen("video.generate")) == ("mine", ())
    assert a2v("download", "v1", "-o", "v.mp4", "--overwrite").returncode == 0
    assert (tmp_path / "v.mp4").read_bytes() == b"video of v1"


def test_an_unknown_video(a2v):
    done = a2v("watch", "nope")

    assert (done.returncode, done.stderr) == (1, "a2v: there is no video 'nope' (HTTP 404, code 10001)\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-v", "batch", "jobs.csv"], "options come after the command: a2v batch … -v"),
        (["bogus"], 'Unknown command "bogus"'),
        (["get"], "VIDEO_ID"),
        (["get", " "], "must not be empty"),
        (["watch"], "at least one"),
        (["watch", "v1", "--timeout", "0"], "--timeout"),
        (["download", "v1"], "--output"),
        (["download", "v1", "-o", "."], "is a folder"),
        (["download", "v1", "-o", "v.mp4", "--mask-output", "v.mp4"], "another file"),
        (["download", "v1", "-o", "/dev/null/v.mp4"], "--output: /dev/null is not a folder"),
        (["generate", "https://example.com/a.wav"], "--model-id"),
        (["generate", "https://example.com/a.wav", "--model-id", "two\u2028words"], "--model-id must"),
        (["generate", "ftp://example.com/a.wav", "--model-id", "m"], "audio_url"),
        (["generate", "nowhere.wav", "--model-id", "m"], "neither a URL (https://…) nor a file"),
        (["characters", "--frobnicate"], "--frobnicate"),
        (["characters", "--base-url", "http://example.com"], "base_url"),
        (["characters", "--local", "--base-url", "http://127.0.0.1:1"], "remove --base-url"),
        (["characters", "--data-dir", "kept"], "add --local"),
        (["characters", "--token-file", "nowhere"], "No such file"),
        (["generate", "a.wav", "--model-id", "m", "-o", "-"], "a2v: -o does not accept - as its value\n"),
        (["say", "-", "--model-id", "m", "-o"], "-o requires an argument"),
        (["generate", "https://x/a.wav", "--model-id", "m", "--pose-id", "p"], "a --model-id or a --pose-id, not both"),
        (["generate", "https://x/a.wav", "--model-id", "m", "--with-mask"], "a2v: --with-mask requires a --pose-id: "),
        (["characters", "--base-url", "http://10.0.0.1"], "in a network that you trust, --insecure\n"),
        (
            ["serve", "--host", "0.0.0.0", "--port", "0"],
            "host '0.0.0.0' can be reached from other machines; pass --allow-remote",
        ),
        (["serve", "--size", "3"], "--size must be one of"),
        (["serve", "--keep-days", "0"], "--keep-days must be a number above 0"),
        (["serve", "--quota", "0"], "--quota must be a whole number"),
        (["serve", "--fps", "23"], "--fps must be one of 24, 25, 30, 50, 60"),
        (["serve", "--max-render-mib", "1"], "--max-render-mib must be a whole number of at least 400"),
        (["serve", "--tls-cert", "data_dir/tls_key"], "--tls-cert needs --tls-key; if one file"),
        (["serve", "--tls-cert", "data_dir/tls_key", "--tls-key", "x"], "data_dir/tls_key cannot be read"),
    ],
)
def test_bad_usage_is_one_line_and_asks_nothing_of_the_server(here, service, arguments, words):
    code, output, errors = here(*arguments)

    assert (code, output) == (2, "")
    assert len(errors.splitlines()) == 1
    assert words in errors
    assert service.calls == ()


@pytest.mark.parametrize(
    ("manifest", "output", "words"),
    [
        (".", "videos", "there are no recordings in .; subfolders are not searched"),
        ("nowhere.csv", "videos", "cannot be read: No such file"),
        ("jobs.csv", "videos", "'nowhere.wav' is neither a URL (https://…) nor a file"),
        ("good.csv", "good.csv", "--output: good.csv is not a folder"),
        ("good.csv", "good.csv/videos", "--output: good.csv/videos is not a folder"),
    ],
)
def test_a_batch_that_cannot_begin_says_why_and_makes_no_folder(here, service, tmp_path, *, manifest, output, words):
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\neva,nowhere.wav\n")
    (tmp_path / "good.csv").write_text("model_id,audio_url\neva,https://example.com/a.wav\n")

    code, _, errors = here("batch", manifest, "-o", output)

    assert (code, service.submissions) == (2, ())
    assert words in errors
    assert not (tmp_path / "videos").exists()


def test_bad_usage_of_the_program(a2v):
    done = a2v("bogus")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('a2v: Unknown command "bogus"')


def test_a_local_file_needs_a_local_engine(a2v, service, tmp_path):
    (tmp_path / "hello.wav").write_bytes(b"RIFF")

    done = a2v("generate", "hello.wav", "--model-id", "eva_a0008", "-o", "hello.mp4")

    assert done.returncode == 2
    assert "the server can only fetch URLs" in done.stderr
    assert "--local" in done.stderr
    assert service.seen("video.generate") == ()


def test_no_token(a2v, environment):
    del environment["A2V_TOKEN"]

    done = a2v("characters")

    assert done.returncode == 2
    assert "set A2V_TOKEN, or pass --token-file FILE, or --local" in done.stderr


def test_a_token_that_cannot_be_one_is_not_shown(a2v, environment):
    environment["A2V_TOKEN"] = "my secret"

    done = a2v("characters")

    assert done.returncode == 2
    assert "my secret" not in done.stderr


def test_the_token_can_come_from_a_file_or_standard_input(a2v, environment, service, tmp_path):
    del environment["A2V_TOKEN"]
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "token").chmod(0o600)

    assert a2v("characters", "--token-file", "token").returncode == 0
    assert a2v("characters", "--token-file", "-", input="from-stdin\n").returncode == 0
    assert tokens(service) == {"Bearer from-file", "Bearer from-stdin"}


@pytest.mark.skipif(sys.platform == "win32", reason="has no such file modes")
def test_a_token_file_that_others_can_read_is_refused(a2v, service, tmp_path):
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o640)

    done = a2v("characters", "--token-file", "token")

    assert done.returncode == 2
    assert "chmod 600 token" in done.stderr
    assert tokens(service) == set()


def test_an_unreachable_server(a2v, environment):
    environment["A2V_BASE_URL"] = "http://127.0.0.1:1"

    done = a2v("characters")

    assert done.returncode == 1
    assert done.stderr.startswith("a2v: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_gives_no_traceback(environment, service):
    import subprocess

    service.characters = [Character(model_id=f"m{number}", name="n" * 1000) for number in range(400)]
    command = f'"{sys.executable}" -m a2v.cli characters | head -n 1'

    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.startswith("m0\t")
    assert done.stderr == ""


def test_help_lists_the_exit_codes(a2v):
    done = a2v("--help")

    assert done.returncode == 0
    for words in ("demo", "serve", "130  interrupted", "A2V_TOKEN"):
        assert words in done.stdout


def test_version(a2v):
    import a2v as package

    assert a2v("--version").stdout == f"a2v {package.__version__}\n"


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    one_by_default(
        ("uvicorn", ["characters", "--local"], "a2v[engine]"),
        ("cyclopts", ["characters"], "a2v[cli]"),
        ("rich", ["--help"], "a2v[cli]"),
        ("av", ["serve"], "a2v[engine]"),
        ("av", ["demo"], "a2v[engine]"),
        ("distributed", ["serve", "--dask", "tcp://127.0.0.1:1"], "a2v[dask]"),
    ),
)
def test_a_missing_extra_is_one_line(environment, tmp_path: Path, package, arguments, extra):
    import subprocess

    # What `import` does when a package is not there.
    code = f"import sys; sys.modules[{package!r}] = None; from a2v.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert f'pip install "{extra}"' in done.stderr
    assert package in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_demo_opens_no_video_on_a_machine_without_a_screen(tmp_path, monkeypatch):
    from a2v.cli.demo import advice

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not [line for line in advice([tmp_path / "eva.mp4"], tmp_path) if line.startswith(("Open", "  xdg-open"))]


def test_what_the_demo_advises_can_be_pasted_into_a_shell(tmp_path, monkeypatch):
    from a2v.cli.demo import advice

    monkeypatch.setenv("DISPLAY", ":0")
    video = tmp_path / "my videos" / "eva's.mp4"
    opening = next(line for line in advice([video], video.parent) if str(tmp_path) in line and line.startswith("  "))
    assert shlex.split(opening)[-1] == str(video)
