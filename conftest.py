"""Runs the code of README.md and docs/: every Python block and every command, against a server of its own."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from attrs import frozen
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

import a2v
from a2v.testing import Service

ROOT = Path(__file__).parent
TOKEN = "token-of-the-examples"
ACCESS_KEY = "canary-access-key"
SECRET_KEY = "canary-secret-key"
STORES = ("AWS_", "AZURE_", "GOOGLE_", "A2V_STAGE_TO")
EVA = a2v.Character(model_id="eva_a0008", name="Eva 01", display_name="Eva 01", gender="female")


def pytest_report_header() -> str:
    """Where the a2v under test comes from."""
    package = Path(a2v.__file__).parent
    if os.environ.get("A2V_TEST_WHEEL") and package.is_relative_to(ROOT / "a2v"):
        pytest.exit("the tree is tested, not the wheel", returncode=4)
    return f"a2v {a2v.__version__} from {package}"


@pytest.fixture(scope="session")
def service_url() -> Iterator[str]:
    voices = [a2v.Voice(voice_name="heart", gender="female", language="English", locale="en-US")]
    with Service(characters=[EVA], voices=voices, content=b"a video", token=TOKEN).server() as server:
        yield server.base_url


@pytest.fixture
def user(service_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who tries the examples: a folder with a recording and a manifest, and the environment that the README asks for."""
    shutil.copy(ROOT / "a2v/engine/recordings/slt.flac", tmp_path / "speech.flac")
    (tmp_path / "recordings").mkdir()
    shutil.copy(ROOT / "a2v/engine/recordings/awb.flac", tmp_path / "recordings")
    (tmp_path / "jobs.csv").write_text(
        "model_id;audio_url;name;customer\n"
        "eva_a0008;https://example.com/hello.wav;hello;ACME\n"
        "eva_a0008;https://example.com/bye.wav;bye;ACME\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A2V_TOKEN", TOKEN)
    monkeypatch.setenv("A2V_BASE_URL", service_url)


class Bucket:
    """A bucket of an S3 server, and what the server saw of it."""

    def __init__(self, server: S3, name: str) -> None:
        self.endpoint, self.name, self._log = server.url, name, server.log
        self._begin = self._log.stat().st_size
        httpx.put(f"{self.endpoint}/{name}").raise_for_status()

    @property
    def place(self) -> str:
        """A prefix in it."""
        return f"s3://{self.name}/speech"

    @property
    def environment(self) -> dict[str, str]:
        """What leads a program to the server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    @property
    def keys(self) -> list[str]:
        """What is in it."""
        return re.findall("<Key>(.*?)</Key>", httpx.get(f"{self.endpoint}/{self.name}?list-type=2").text)

    @property
    def half_uploads(self) -> list[str]:
        """What was begun and neither finished nor taken back."""
        return re.findall("<UploadId>(.*?)</UploadId>", httpx.get(f"{self.endpoint}/{self.name}?uploads").text)

    def delete(self, path: str) -> None:
        """Remove an object, or all of it, as somebody else would."""
        # The server wants a signature, and does not look at it.
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=somebody/20260101/us-east-1/s3/aws4_request"}
        httpx.delete(f"{self.endpoint}{path}", headers=signed).raise_for_status()

    def requests(self, method: str) -> list[str]:
        """The paths that were asked for with a method, in turn."""
        with self._log.open(encoding="utf-8") as log:
            log.seek(self._begin)
            return re.findall(rf'{method} (/{self.name}/[^" ]*) HTTP', log.read())


@frozen
class S3:
    """A real S3 server, in a process of its own: moto's."""

    url: str
    log: Path


@contextmanager
def _serve_s3(log: Path) -> Iterator[S3]:
    """Run a server until the end of the block; it writes its log to a file."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(STORES)}
    command: list[Any] = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        try:
            yield S3(_address(process, log), log)
        finally:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"Running on (http://\S+)", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with _serve_s3(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, to which the environment of this process leads."""
    for name in [name for name in os.environ if name.startswith(STORES)]:
        monkeypatch.delenv(name)
    bucket = Bucket(s3, f"bucket-{uuid.uuid4().hex[:8]}")
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


@pytest.fixture
def bucket_user(user: None, s3: S3, bucket: Bucket) -> None:
    """Somebody who has the bucket of the examples besides."""
    Bucket(s3, "my-bucket")


def _run_python(example: Example) -> None:
    """Run a program as a file, and any other block as a cell of a notebook, where ``await`` is allowed."""
    if "asyncio.run(" in example.parsed:
        program = Path("program.py")
        program.write_text(example.parsed, encoding="utf-8")
        done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    namespace = {"a2v": a2v, "__name__": "__main__"}
    if code.co_flags & inspect.CO_COROUTINE:
        anyio.run(eval, code, namespace)
    else:
        exec(code, namespace)


def _run_commands(example: Example) -> None:
    """Each line as it stands, but for those that set up the project: ``tests/test_package.py`` looks after them."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in example.parsed.splitlines():
        if not line.startswith("python3 -m venv"):
            done = subprocess.run(
                line, shell=True, capture_output=True, text=True, timeout=300, env=os.environ | {"PATH": path}
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


_PARSERS = (CodeBlockParser("python", _run_python), CodeBlockParser("bash", _run_commands), SkipParser())
_PAGES = Sybil(parsers=_PARSERS, patterns=["README.md", "docs/*.md"], excludes=["docs/staging.md"], fixtures=["user"])
_STAGING = Sybil(parsers=_PARSERS, patterns=["docs/staging.md"], fixtures=["bucket_user"])

pytest_collect_file = (_PAGES + _STAGING).pytest()
