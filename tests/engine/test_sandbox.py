"""The restrictions of the worker process."""

from __future__ import annotations

import json
import os
import platform
import socket
import struct
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import a2v.engine
from a2v.engine import renderer, sandbox
from a2v.engine.errors import RenderCrashedError, RenderError
from a2v.engine.renderer import RenderRequest, render_in_child
from tests.sets import one_by_default

CLIP = min((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"), key=lambda path: path.stat().st_size)

needs_sandbox = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux"
)

# Confines itself as the worker does, attempts everything forbidden, and prints the error of each attempt.
ATTEMPTS = """
import ctypes, json, os, pathlib, signal, socket, subprocess, sys, threading
from a2v.engine import sandbox
recording, folder, secret, parent = sys.argv[1:]
confined = sandbox.confine([pathlib.Path(recording)], [pathlib.Path(folder)])

def ran_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

def linked():
    os.link(secret, folder + "/link")

def clone_process():
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    pid = libc.syscall(number, signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")

def checked(numbers, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(numbers[os.uname().machine], *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def watch():
    checked({"x86_64": 294, "aarch64": 26}, 0)

attempts = {
    "read the recording": lambda: open(recording, "rb").read(),
    "write beside it": lambda: open(folder + "/new", "w").write("x"),
    "replace a file": lambda: os.replace(folder + "/new", folder + "/newer"),
    "import a module": lambda: __import__("email.mime.audio"),
    "start a thread": ran_thread,
    "read another file": lambda: open(secret).read(),
    "list its folder": lambda: os.listdir(os.path.dirname(secret)),
    "write another file": lambda: open(secret, "a"),
    "link another file": linked,
    "read the parent's environment": lambda: open(f"/proc/{parent}/environ", "rb").read(),
    "read the parent's memory": lambda: open(f"/proc/{parent}/mem", "rb"),
    "read the passwords": lambda: open("/etc/passwd").read(),
    "make a socket": lambda: socket.socket(),
    "make a local socket": lambda: socket.socket(socket.AF_UNIX),
    "fork": lambda: os.fork() or os._exit(0),
    "clone": clone_process,
    "run a program": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "replace itself": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "signal the parent": lambda: os.kill(int(parent), 0),
    "slow the parent down": lambda: os.setpriority(os.PRIO_PROCESS, int(parent), os.getpriority(os.PRIO_PROCESS, 0)),
    "hold the parent up": lambda: os.sched_setaffinity(int(parent), os.sched_getaffinity(0)),
    "open another file to all": lambda: os.chmod(secret, 0o600),
    "give another file away": lambda: os.chown(secret, os.getuid(), os.getgid()),
    "date another file": lambda: os.utime(secret),
    "mark another file": lambda: os.setxattr(secret, "user.a2v", b"1"),
    "empty another file": lambda: os.truncate(secret, 0),
    "watch a folder": watch,
    "share memory": lambda: checked({"x86_64": 29, "aarch64": 194}, 4711, 4096, 0o1600),
    "make a file system": lambda: checked({"x86_64": 430, "aarch64": 430}, b"tmpfs", 0),
}
found = {}
for name, attempt in attempts.items():
    try:
        attempt()
        found[name] = "done"
    except OSError as error:
        found[name] = type(error).__name__
print(json.dumps([confined, found]))
"""
ALLOWED = {"read the recording", "write beside it", "replace a file", "import a module", "start a thread"}


@needs_sandbox
def test_the_decoder_reaches_its_recording_its_folder_and_nothing_else(tmp_path: Path) -> None:
    folder, secret = tmp_path / "folder", tmp_path / "elsewhere" / "secret"
    folder.mkdir()
    secret.parent.mkdir()
    secret.write_text("t0k3n")
    (tmp_path / "recording").write_bytes(b"RIFF")
    arguments = [str(tmp_path / "recording"), str(folder), str(secret), str(os.getpid())]
    ran = subprocess.run([sys.executable, "-c", ATTEMPTS, *arguments], capture_output=True, text=True, check=True)
    confined, found = json.loads(ran.stdout)
    of_files = {name for name in found if "file" in name or "read the p" in name or "folder" in name} - ALLOWED
    expected = set(found) - ALLOWED - (set() if "files" in confined else of_files)
    if "calls" not in confined:
        pytest.skip("this kernel refuses seccomp filters")
    assert {name for name in ALLOWED if found[name] != "done"} == set()
    assert {name for name in expected if found[name] == "done"} == set()


@needs_sandbox
def test_the_filter_rejects_its_list_and_calls_of_other_architectures() -> None:
    for machine, (architecture, column) in sandbox._MACHINES.items():
        program = sandbox._program(architecture, column)

        def verdict(number: int, argument: int = 0, arch: int = architecture, program=program) -> int:
            """Run the filter program as the kernel does."""
            words, position, word = {0: number, 4: arch, 16: argument}, 0, 0
            while True:
                operation, if_true, if_false, operand = program[position]
                position += 1
                if operation == 0x06:
                    return operand
                if operation == 0x20:
                    word = words[operand]
                else:
                    holds = {0x15: word == operand, 0x35: word >= operand, 0x45: bool(word & operand)}[operation]
                    position += if_true if holds else if_false

        allow, reject = 0x7FFF_0000, 0x0005_0001
        for name, numbers in sandbox._REJECTED.items():
            if numbers[column] is not None:
                assert verdict(numbers[column]) == reject, (machine, name)
        clone, tgkill = sandbox._CLONE[column], sandbox._TGKILL[column]
        assert (verdict(clone, 0x3D0F00), verdict(clone, 17)) == (allow, reject)
        assert (verdict(tgkill, os.getpid()), verdict(tgkill, 1)) == (allow, reject)
        assert verdict(0) == verdict(1) == verdict(9) == allow
        assert verdict(0, arch=0x4000_0003) == verdict(0x4000_0000) == reject
        assert len(program) < 4096


@pytest.mark.anyio
@needs_sandbox
async def test_a_render_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the real worker, an exploited decoder can read no secret."""
    secret = tmp_path / "elsewhere" / "secret"
    secret.parent.mkdir()
    secret.write_text("t0k3n")
    folder = tmp_path / "folder"
    folder.mkdir()
    taken_over = f"""
import sys
from a2v.engine import audio, worker
def read(recording):
    open({str(folder / "found")!r}, "w").write("nothing")
    secret = open({str(secret)!r}).read()
    open({str(folder / "found")!r}, "w").write(secret)
audio.Recording.pieces = read
sys.exit(worker.main(sys.argv[1:]))
"""
    monkeypatch.setattr("a2v.engine.renderer.WORKER", (sys.executable, "-c", taken_over))
    with pytest.raises(RenderCrashedError):
        await render_in_child(RenderRequest(audio=CLIP, subject_id="eva_a0008", destination=folder / "video.mp4"))
    assert (folder / "found").read_text() == "nothing"


# -- what it is given -------------------------------------------------------------------------------------------------

REPORT = """
import json, os, sys
kept = [int(name) for name in os.listdir("/proc/self/fd")] if sys.platform == "linux" else [0, 1, 2]
seen = {"environment": dict(os.environ), "path": sys.path, "descriptors": kept}
open(sys.argv[3], "w").write(json.dumps(seen))
print(json.dumps({"ok": True}))
"""


async def report(monkeypatch: pytest.MonkeyPatch, path: Path) -> dict[str, object]:
    monkeypatch.setattr("a2v.engine.renderer.WORKER", (*renderer.WORKER[:-2], "-c", REPORT))
    await render_in_child(RenderRequest(audio=CLIP, subject_id="eva_a0008", destination=path / "seen"))
    return json.loads((path / "seen").read_text())


@pytest.mark.anyio
async def test_it_inherits_only_the_environment_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = (
        "A2V_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "MY_PASSWORD",
        "HTTPS_PROXY",
        "PYTHONSTARTUP",
        "LD_PRELOAD_",
    )
    for name in secrets:
        monkeypatch.setenv(name, "t0k3n")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    environment = (await report(monkeypatch, tmp_path))["environment"]
    assert "t0k3n" not in environment.values()
    assert (environment["LC_ALL"], environment["PATH"]) == ("C.UTF-8", os.environ["PATH"])


@pytest.mark.anyio
async def test_it_inherits_no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as ours, (tmp_path / "secret").open("w") as file:
        for kept in (ours.fileno(), file.fileno()):
            os.set_inheritable(kept, True)
        descriptors = (await report(monkeypatch, tmp_path))["descriptors"]
    assert max(descriptors) <= 3  # and one for listing them


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    one_by_default(os.pathsep, None, "", ".", f"relative{os.pathsep}"),
)
async def test_it_imports_nothing_from_the_current_folder(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("numpy", "av", "json", "attrs", "queue", "a2v"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'a').write({module!r})\n")
    monkeypatch.chdir(tmp_path)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    await render_in_child(
        RenderRequest(audio=CLIP, subject_id="eva_a0008", destination=tmp_path / "video.mp4", size=16)
    )
    assert (tmp_path / "video.mp4").exists()
    assert not (tmp_path / "was_run").exists()


@pytest.mark.anyio
async def test_absolute_folders_of_pythonpath_are_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path), "relative"]))
    seen = await report(monkeypatch, tmp_path)
    assert seen["environment"]["PYTHONPATH"] == str(tmp_path)
    assert str(tmp_path) in seen["path"]


# -- time -------------------------------------------------------------------------------------------------------------

IMPATIENT = """
import sys
from a2v.engine import decoding, worker
decoding._BASE_SECONDS = 0.3
sys.exit(worker.main(sys.argv[1:]))
"""


def with_comments(count: int) -> bytes:
    """A FLAC file with many different tags, on which FFmpeg takes quadratic time."""
    flac = CLIP.read_bytes()
    tags = b"".join(struct.pack("<I", 9) + b"%07x=v" % number for number in range(count))
    block = struct.pack("<I", 1) + b"x" + struct.pack("<I", count) + tags
    return flac[:42] + struct.pack(">I", 0x04 << 24 | len(block)) + block + flac[42:]


@pytest.mark.anyio
async def test_a_recording_that_takes_too_long_to_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb").write_bytes(with_comments(40_000))
    monkeypatch.setattr("a2v.engine.renderer.WORKER", (sys.executable, "-c", IMPATIENT))
    with anyio.fail_after(60), pytest.raises(RenderError, match=r"reading it takes longer than \d+ seconds"):
        await render_in_child(
            RenderRequest(audio=tmp_path / "bomb", subject_id="eva_a0008", destination=tmp_path / "video.mp4")
        )


@pytest.mark.anyio
async def test_analysis_and_drawing_do_not_count_as_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2v.engine.renderer.WORKER", (sys.executable, "-c", IMPATIENT))
    await render_in_child(
        RenderRequest(audio=CLIP, subject_id="eva_a0008", destination=tmp_path / "video.mp4", size=256)
    )
    assert (tmp_path / "video.mp4").exists()


SERVER = """
import ctypes, os, pathlib, signal, sys
from a2v.engine import Settings, serve
def ready(url):
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)  # PR_GET_DUMPABLE
    os.kill(os.getpid(), signal.SIGTERM)
serve(Settings(port=0, data_dir=pathlib.Path(sys.argv[1])), ready=ready)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_server_hides_its_memory_from_other_processes_of_its_user(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", SERVER, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0"]
