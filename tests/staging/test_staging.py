"""Staging against a real S3 server, and what is said when it does not work."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import tracemalloc
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import a2v
from a2v.staging import AsyncStager, Stager, stage

pytestmark = pytest.mark.anyio
MIB = 1 << 20


def name_of(content: bytes, suffix: str = ".wav") -> str:
    return hashlib.sha256(content).hexdigest() + suffix


def fetch(url: str, header: str | None = None) -> bytes | str:
    """As the server does: with nothing but the URL."""
    reply = httpx.get(url).raise_for_status()
    return reply.headers[header] if header else reply.content


@pytest.fixture
def place(bucket) -> str:
    return bucket.place


# -- what is staged ---------------------------------------------------------------------------------------------------


async def test_anyone_can_fetch_a_staged_file(bucket, place, recording, anyio_backend):
    async with stage(recording(content=b"hello"), place) as audio_url:
        assert fetch(audio_url) == b"hello"

    assert fetch(audio_url, "content-type") == "audio/x-wav"
    assert bucket.keys == [f"speech/{name_of(b'hello')}"]


def test_without_async(bucket, place, recording):
    with stage(str(recording(content=b"hello")), place + "/") as audio_url:
        assert fetch(audio_url) == b"hello"

    with Stager(f"s3://{bucket.name}") as stager:
        assert fetch(stager.url(recording(content=b"hello"))) == b"hello"

    assert sorted(bucket.keys) == sorted([name_of(b"hello"), f"speech/{name_of(b'hello')}"])


async def test_the_same_content_is_uploaded_once(bucket, place, recording, anyio_backend):
    async with AsyncStager(place) as stager:
        first = await stager.url(recording("one.wav"))
        second = await stager.url(recording("two.WAV"))
    async with stage(recording("three.wav"), place) as third:
        pass

    assert len(bucket.requests("PUT")) == 1
    assert {urlsplit(url).path for url in (first, second, third)} == {f"/{bucket.name}/speech/{name_of(b'speech')}"}


def test_another_process_does_not_upload_it_again(bucket, place, recording):
    path = recording()
    code = f"from a2v.staging import Stager; print(Stager({place!r}).url({str(path)!r}))"
    urls = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.partition("?")[
            0
        ]
        for _ in range(2)
    }

    assert (len(urls), len(bucket.requests("PUT"))) == (1, 1)


async def test_many_at_once(bucket, place, recording, anyio_backend):
    paths = [recording(f"{i}.wav", b"%d" % (i // 8)) for i in range(40)]
    urls = {}

    async with AsyncStager(place) as stager, anyio.create_task_group() as tasks:

        async def one(path):
            urls[path] = await stager.url(path)

        for path in paths:
            tasks.start_soon(one, path)

    assert len(bucket.requests("PUT")) == 5
    assert [fetch(urls[path]) for path in paths[::8]] == [path.read_bytes() for path in paths[::8]]


async def test_a_few_at_once_however_many_are_asked_for(place, gate, recording, anyio_backend):
    paths = [recording(f"{i}.wav", bytes([i]) * 3 * MIB) for i in range(8)]
    async with AsyncStager(place) as stager, anyio.create_task_group() as tasks:
        for path in paths:
            tasks.start_soon(stager.url, path)
        await anyio.to_thread.run_sync(gate.is_full.wait)
        assert sum(thread.name == "a2v worker" for thread in threading.enumerate()) <= 4
        gate.opened.set()


@pytest.mark.parametrize("name", ["mein Gespräch (1) & more?#%20.wav", "日本.wav", ".wav", "-rf.wav"])
def test_the_files_own_name_does_not_matter(bucket, place, recording, name):
    path = recording(name)
    with stage(path, place) as audio_url:
        assert fetch(audio_url) == b"speech"

    assert bucket.keys == [f"speech/{name_of(b'speech', path.suffix)}"]


@pytest.mark.parametrize("prefix", ["with space", "grün/日本", "a%20b", "a+b=c&d", "~(x)*'!", "deep/er/still"])
def test_any_prefix(bucket, recording, prefix):
    with stage(recording(), f"s3://{bucket.name}/{prefix}", remove=True) as audio_url:
        assert fetch(audio_url) == b"speech"

    assert bucket.keys == []


def test_an_odd_extension_stays_here(bucket, place, recording):
    with stage(recording("speech.wav~old version"), place):
        pass

    assert bucket.keys == [f"speech/{name_of(b'speech', '')}"]


def test_a_big_file_is_never_whole_in_memory(bucket, place, tmp_path):
    path = tmp_path / "big.wav"
    with path.open("wb") as file:
        for i in range(48):
            file.write(bytes([i]) * MIB)
    tracemalloc.start()
    try:
        with stage(path, place) as audio_url:
            # A part being filled, and two on their way.
            assert tracemalloc.get_traced_memory()[1] < 28 * MIB
    finally:
        tracemalloc.stop()

    assert [part.partition("?partNumber=")[2][:1] for part in sorted(bucket.requests("PUT"))] == [*"123456"]
    with httpx.stream("GET", audio_url) as reply:
        digest = hashlib.sha256()
        for chunk in reply.iter_bytes():
            digest.update(chunk)
    assert digest.hexdigest() + ".wav" == urlsplit(audio_url).path.rpartition("/")[2]


def test_an_incomplete_object_is_uploaded_again(bucket, place, recording):
    name = name_of(b"speech")
    httpx.put(f"{bucket.endpoint}/{bucket.name}/speech/{name}", content=b"spe").raise_for_status()

    with stage(recording(), place) as audio_url:
        assert fetch(audio_url) == b"speech"


# -- for how long -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"), [({}, 86400), ({"expires_in": 90.9}, 90), ({"expires_in": 604800}, 604800)]
)
def test_how_long_a_url_is_good(place, recording, given, seconds):
    with stage(recording(), place, **given) as audio_url:
        assert parse_qs(urlsplit(audio_url).query)["X-Amz-Expires"] == [str(seconds)]


@pytest.mark.parametrize("wrong", [0, -1, 604801, float("nan"), float("inf"), True, "1", None])
def test_a_url_cannot_be_good_for_ever(place, wrong):
    with pytest.raises(a2v.ConfigurationError, match=r"expires_in must be 1 to 604800 seconds"):
        stage("speech.wav", place, expires_in=wrong)


# -- removal ----------------------------------------------------------------------------------------------------------


async def test_it_stays_unless_asked(bucket, place, recording, anyio_backend):
    async with stage(recording(), place):
        pass

    assert len(bucket.keys) == 1


async def test_it_is_removed_if_asked(bucket, place, recording, anyio_backend):
    async with stage(recording(), place, remove=True):
        assert len(bucket.keys) == 1
    assert bucket.keys == []

    async with AsyncStager(place, remove=True) as stager:
        for i in range(3):
            await stager.url(recording(content=b"%d" % i))
            await stager.url(recording(content=b"%d" % i))
        assert len(bucket.keys) == 3
    assert bucket.keys == []


async def test_the_last_who_needs_it_removes_it(bucket, place, recording, anyio_backend):
    async with stage(recording(), place, remove=True):
        with stage(recording(), place, remove=True):
            pass
        assert len(bucket.keys) == 1
    assert bucket.keys == []


async def test_a_stager_without_removal_keeps_the_object(bucket, place, recording, anyio_backend):
    async with stage(recording(), place, remove=True), stage(recording(), place):
        pass

    assert len(bucket.keys) == 1


def test_an_object_that_existed_before_stays(bucket, place, recording):
    httpx.put(f"{bucket.endpoint}/{bucket.name}/speech/{name_of(b'speech')}", content=b"speech").raise_for_status()

    with stage(recording(), place, remove=True):
        pass

    assert len(bucket.keys) == 1


@pytest.mark.parametrize("error", [a2v.TransportError("gone"), KeyboardInterrupt()])
async def test_after_an_error_a_render_may_still_need_it(bucket, place, recording, error, anyio_backend):
    with pytest.raises(type(error)):
        async with stage(recording(), place, remove=True):
            raise error
    with pytest.raises(type(error)), Stager(place, remove=True) as stager:  # noqa: PT012  # it is the block that fails
        stager.url(recording())
        raise error

    assert len(bucket.keys) == 1


async def test_an_object_removed_by_another_program(bucket, place, recording, anyio_backend):
    async with AsyncStager(place, remove=True) as stager:
        url = await stager.url(recording())
        bucket.delete(urlsplit(url).path)
        assert fetch(await stager.url(recording())) == b"speech"
        bucket.delete(urlsplit(url).path)


def test_an_object_that_cannot_be_removed(blobs, place, recording, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", blobs.url)
    stager = Stager(place, remove=True)
    for content in (b"1", b"2", b"3"):
        stager.url(recording(content=content))
    stays, gone, _ = sorted(blobs.objects)
    blobs.guarded.add(stays)
    del blobs.objects[gone]

    with pytest.raises(a2v.StagingError, match=f"^{place}/.*.wav cannot be removed: access is denied"):
        stager.close()
    assert list(blobs.objects) == [stays]
    stager.close()


async def test_a_closed_stager(place, recording, anyio_backend):
    stager, other = AsyncStager(place), Stager(place)
    await stager.aclose()
    other.close()

    with pytest.raises(a2v.StagingError, match="this stager is closed"):
        await stager.url(recording())
    with pytest.raises(a2v.StagingError, match="this stager is closed"):
        other.url(recording())


# -- in mid-upload ----------------------------------------------------------------------------------------------------


async def test_cancelled_in_mid_upload_nothing_is_left(bucket, place, gate, recording, anyio_backend):
    path = recording(content=bytes(40 * MIB))

    with anyio.fail_after(20):  # the store's library would wait for minutes
        async with anyio.create_task_group() as tasks:
            stager = AsyncStager(place)
            tasks.start_soon(stager.url, path)
            await anyio.to_thread.run_sync(gate.is_full.wait)
            tasks.cancel_scope.cancel()
    assert len(bucket.half_uploads) == 1

    gate.opened.set()
    with anyio.fail_after(20):
        while bucket.half_uploads:  # noqa: ASYNC110  # the thread that is left cleans up
            await anyio.sleep(0.01)
    assert bucket.keys == []
    assert [path for path in bucket.requests("DELETE") if "uploadId=" in path]


async def test_one_gives_up_another_gets_it(bucket, place, gate, recording, anyio_backend):
    path = recording(content=bytes(20 * MIB))

    async with AsyncStager(place) as stager:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stager.url, path)
                await anyio.to_thread.run_sync(gate.is_full.wait)
                tasks.cancel_scope.cancel()
        gate.opened.set()
        await stager.url(path)

    assert (len(bucket.keys), bucket.half_uploads) == (1, [])


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_in_mid_upload(bucket, place, gate, recording):
    path = recording(content=bytes(20 * MIB))
    code = f"from a2v.staging import stage\nwith stage({str(path)!r}, {place!r}): pass"

    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert gate.is_full.wait(20)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]

    assert said.endswith("KeyboardInterrupt\n")
    assert bucket.keys == []


def test_a_file_that_changes_meanwhile(bucket, place, gate, recording):
    path = recording(content=bytes(20 * MIB))
    errors = []

    def run():
        try:
            Stager(place).url(path)
        except a2v.A2VError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert gate.is_full.wait(20)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    gate.opened.set()
    thread.join()

    assert [str(error) for error in errors] == [f"{path} was changed while it was staged"]
    assert (bucket.keys, bucket.half_uploads) == ([], [])


# -- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to", ["bucket/prefix", "https://example.com/", "file:///tmp", "S3://bucket", "s3:/bucket", ""]
)
def test_an_unknown_scheme(to):
    with pytest.raises(
        a2v.ConfigurationError, match=r"s3://bucket/prefix .*, gs://bucket/prefix .*, az://container/prefix"
    ):
        AsyncStager(to)


@pytest.mark.parametrize(
    "to", ["s3://", "s3:///prefix", "s3://user:canary@bucket/prefix", "gs://-", "az://b?sig=canary"]
)
def test_no_bucket(to):
    with pytest.raises(a2v.ConfigurationError, match="there is no bucket in it") as caught:
        Stager(to)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["../x", "a/../b", "a//b", "a?sig=canary", "a#b", "a\nb", "./a"])
def test_a_bad_prefix(prefix):
    with pytest.raises(a2v.ConfigurationError, match="the prefix of the staging target must be plain names") as caught:
        Stager(f"s3://bucket/{prefix}")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("value", ["not a url", "localhost:9000", "https://user:canary@host", "http://"])
def test_a_bad_endpoint(bucket, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)

    with pytest.raises(a2v.ConfigurationError, match=f"{variable} must be a URL") as caught:
        Stager("s3://bucket/prefix")
    assert "canary" not in str(caught.value)


def test_files_that_are_none(place, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    reasons = {
        "nowhere.wav": "does not exist",
        ".": "is a folder; give a file in it",
        "pipe": "is not a regular file",
        "empty.wav": "is empty",
        "loop": "cannot be read: ",
    }
    stager = Stager(place)

    for name, reason in reasons.items():
        with pytest.raises(a2v.StagingError) as caught:
            stager.url(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name} {reason}")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that opens, and cannot be read")
def test_a_file_that_cannot_be_read(place):
    with pytest.raises(a2v.StagingError, match=r"^/proc/self/mem cannot be read: Input/output error$"):
        Stager(place).url("/proc/self/mem")


def test_no_such_bucket(bucket, recording):
    with pytest.raises(
        a2v.StagingError, match=r"speech.wav cannot be staged to s3://nowhere/x: there is no such bucket$"
    ):
        Stager("s3://nowhere/x").url(recording())


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((403, "AccessDenied"), "access is denied: the credentials need the right to"),
        ((403, "RequestTimeTooSkewed"), "the clock of this machine is wrong"),
        ((403, "InvalidAccessKeyId"), "the store does not accept the credentials; they come from AWS_ACCESS_KEY_ID"),
        ((403, "SignatureDoesNotMatch"), "the store does not accept the credentials"),
        ((400, "ExpiredToken"), "the store does not accept the credentials"),
        ((401, "Unauthorized"), "the store does not accept the credentials"),
        ((400, "AuthorizationHeaderMalformed"), "the bucket is in another region: set AWS_REGION"),
        ((301, "PermanentRedirect"), "the bucket is in another region: set AWS_REGION"),
        ((400, "SomethingNew"), r"the store rejects the request \(SomethingNew\)"),
    ],
)
@pytest.mark.usefixtures("anyio_backend")
async def test_the_store_refuses(refuse, place, recording, refusal, reason):
    refuse(*refusal)

    with pytest.raises(a2v.StagingError, match=f"speech.wav cannot be staged to {place}: {reason}") as caught:
        async with stage(recording(), place):
            pass
    check_no_secret(caught.value)


def test_it_may_be_written_but_not_read(refuse, place, recording):
    refuse(403, "")

    with pytest.raises(a2v.StagingError, match="cannot be read from there: access is denied"):
        Stager(place).url(recording())


def test_a_store_that_does_not_answer(bucket, place, recording, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(a2v.StagingError, match=r"speech.wav cannot be staged to .*: the store cannot be reached"):
        Stager(place).url(recording())


def test_no_credentials(bucket, place, recording, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    with pytest.raises(a2v.StagingError, match="no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Stager(place).url(recording())


def check_no_secret(error: BaseException) -> None:
    seen = error
    while seen:
        assert not any(secret in f"{seen} {seen!r} {vars(seen)}" for secret in ("canary", "X-Amz", "Signature="))
        seen = seen.__cause__ or seen.__context__
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_nothing_secret_is_shown(bucket, place, recording, caplog, capfd):
    with ExitStack() as stack, caplog.at_level("DEBUG"):
        one, many, others = stage(recording(), place), Stager(place), AsyncStager(place)
        stack.enter_context(one)
        shown = [repr(one), repr(many), repr(others), caplog.text, *capfd.readouterr()]

    assert [text for text in shown if "canary" in text or "X-Amz" in text] == []
    assert all(place in text for text in shown[:3])


# -- other stores -----------------------------------------------------------------------------------------------------


@pytest.fixture
def google(blobs, monkeypatch, tmp_path):
    """Somebody with a key of Google's."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "private_key": key.decode(), "private_key_id": "1", "client_email": "a@b.iam"}
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_BASE_URL", blobs.url)


@pytest.fixture
def azure(blobs, monkeypatch):
    """Somebody with a key of Azure's."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"canary" * 8).decode())
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", blobs.url)


async def test_google_cloud_storage(google, blobs, recording, anyio_backend):
    async with stage(recording(), "gs://bucket/my speech", remove=True, expires_in=3600) as audio_url:
        query = parse_qs(urlsplit(audio_url).query)
        assert fetch(audio_url) == b"speech"
        assert list(blobs.objects) == [f"/bucket/my speech/{name_of(b'speech')}"]
        assert query["X-Goog-Expires"] == ["3600"]
        assert len(query["X-Goog-Signature"][0]) == 512

    assert blobs.objects == {}


async def test_azure(azure, blobs, recording, anyio_backend):
    async with stage(recording(), "az://container/my speech", remove=True, expires_in=3600) as audio_url:
        assert fetch(audio_url) == b"speech"
        query = parse_qs(urlsplit(audio_url).query)
        begin, end = (datetime.fromisoformat(query[name][0]) for name in ("st", "se"))
        assert (query["sp"], (end - begin).total_seconds()) == (["r"], 3600)
        assert list(blobs.objects) == [f"/container/my speech/{name_of(b'speech')}"]

    assert blobs.objects == {}


def test_azure_without_a_key(bucket, recording, monkeypatch):
    with pytest.raises(
        a2v.StagingError, match="no credentials: set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT"
    ):
        Stager("az://container").url(recording())
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2023&sig=canary")

    with pytest.raises(a2v.StagingError, match="a SAS token cannot sign URLs") as caught:
        Stager("az://container").url(recording())
    check_no_secret(caught.value)


def test_google_without_its_file(bucket, recording, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")

    with pytest.raises(a2v.StagingError, match="the credentials cannot be read: set GOOGLE_APPLICATION_CREDENTIALS"):
        Stager("gs://bucket").url(recording())


# -- the package ------------------------------------------------------------------------------------------------------


def test_without_the_extra():
    code = """
import sys
sys.modules["obstore"] = None
import a2v
try:
    import a2v.staging
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == 'staging needs one more package (obstore): pip install "a2v[staging]"\n'
