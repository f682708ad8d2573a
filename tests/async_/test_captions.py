"""Captions, which engines of a2v offer as files beside their videos."""

from __future__ import annotations

import gzip

import anyio
import httpx
import pytest

import a2v

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

AUDIO = "https://example.com/hello.wav"
VTT = "WEBVTT\n\n00:00:00.100 --> 00:00:01.000\nBread &amp; butter\n"
SRT = "1\n00:00:00,100 --> 00:00:01,000\nBread & butter\n"
FINISHED = {"status": "finished", "video_url": "https://files.example/v.mp4"}
CAPTIONED = FINISHED | {"captions_url": "https://files.example/v.vtt?signature=s3cret"}


def vtt(content: str | bytes = VTT, **headers: str) -> httpx.Response:
    return httpx.Response(200, content=content, headers={"content-type": "text/vtt", **headers})


@pytest.fixture
def task(service, make_client):
    """A finished video with captions."""
    service.plan = [(0, CAPTIONED)]
    return make_client().videos.task("v")


async def test_captions_are_saved_in_both_formats(service, task, tmp_path) -> None:
    service.replies["v.vtt"] = [vtt()]
    assert (await task.download(tmp_path / "v.vtt", captions=True)).read_text() == VTT
    assert (await task.download(tmp_path / "v.SRT", captions=True)).read_text() == SRT
    assert "authorization" not in service.seen("v.vtt")[0].headers
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.SRT", "v.vtt"]
    with pytest.raises(a2v.DownloadError, match="exists already; pass overwrite=True"):
        await task.download(tmp_path / "v.vtt", captions=True)


async def test_the_url_is_a_secret(task) -> None:
    video = await task.refresh()
    assert video.captions_url == CAPTIONED["captions_url"]
    assert "s3cret" not in repr(video)
    assert "captions_url" not in video.to_dict(urls=False)
    assert a2v.Video.from_dict(video.to_dict()) == video


@pytest.mark.parametrize("content", ["WEBVTT", "WEBVTT\n", f"WEBVTT\n\n00:00.000 --> 00:01.000\n{'a' * 1000}\n"])
async def test_captions_without_limits_of_the_service(service, task, tmp_path, content) -> None:
    """None at all, or longer ones than users may send."""
    service.replies["v.vtt"] = [vtt(gzip.compress(content.encode()), **{"content-encoding": "gzip"})]
    saved = await task.download(tmp_path / "v.srt", captions=True)
    assert saved.read_text().partition("\n")[2].rpartition("\n")[0] == (
        f"00:00:00,000 --> 00:00:01,000\n{'a' * 1000}" if "a" in content else ""
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<html>Not found</html>", "a document, such as an error page, instead of the captions"),
        ("WEBVTTX", "instead of the captions"),
        ("WEBVTT\n\n00:01.000 -> 00:02.000\nHello\n", r"captions .* are not valid WebVTT: line 3: '00:01.000 -> "),
        (b"WEBVTT\n\n\xff", "captions .* are not valid WebVTT: .*utf-8"),
        ("WEBVTT\n\n" + "\n" * (16 << 20), "the captions are larger than 16 MiB"),
    ],
)
async def test_invalid_captions(service, make_client, tmp_path, content, problem) -> None:
    service.plan = [(0, CAPTIONED)]
    service.replies["v.vtt"] = [vtt(content)]
    task = make_client(max_retries=0).videos.task("v")
    with pytest.raises(a2v.DownloadError, match=problem):
        await task.download(tmp_path / "v.srt", captions=True)
    assert not list(tmp_path.iterdir())


async def test_wrong_arguments_and_a_video_without_captions(service, make_client, check, tmp_path) -> None:
    service.plan = [(0, FINISHED)]
    task = make_client().videos.task("v")
    with pytest.raises(a2v.InvalidArgumentError, match=r"path must end in \.srt or \.vtt"):
        await task.download(tmp_path / "v.mp4", captions=True)
    with pytest.raises(a2v.InvalidArgumentError, match="mask and captions exclude each other"):
        await task.download(tmp_path / "v.vtt", captions=True, mask=True)
    assert not service.requests
    with pytest.raises(a2v.DownloadError, match=r"has no captions to download: .* options={\"captions\"") as caught:
        await task.download(tmp_path / "v.vtt", captions=True)
    check(caught.value)


JOBS = [a2v.Job("m", f"{AUDIO}?{name}", name=name, options={"captions": ["track", "files"]}) for name in "ab"]


async def run_batch(make_client, tmp_path, jobs=JOBS, **options) -> dict[str, a2v.Outcome]:
    async with (
        make_client() as client,
        client.batch(jobs, save_to=tmp_path / "videos", journal=tmp_path / "j.db", **options) as batch,
    ):
        return {outcome.job.name: outcome async for outcome in batch}


@pytest.mark.parametrize("step", ["v.vtt", "v.mp4"])
async def test_an_interrupted_batch_saves_the_captions_in_its_next_run(service, make_client, tmp_path, step) -> None:
    """Whether it is interrupted before the captions, between the two files, or before the video."""
    service.plan = [(0, CAPTIONED)]
    service.replies["v.vtt"] = [vtt()]
    whole = {f"{name}.{extension}" for name in "ab" for extension in ("mp4", "srt", "vtt")}
    folder = tmp_path / "videos"
    for number in range(1, 10):
        requests = 0

        async def interrupt(request) -> httpx.Response:
            nonlocal requests
            requests += 1
            if requests == number:  # noqa: B023  # called within the loop
                scope.cancel()
                await anyio.sleep(60)
            return vtt() if step == "v.vtt" else service.well(request)

        service.replies[step] = [interrupt]
        with anyio.CancelScope() as scope:
            outcomes = await run_batch(make_client, tmp_path)
        if not scope.cancelled_caught:
            break
        saved = {path.name for path in folder.iterdir()} & whole
        # The video is the last file of a job.
        assert not any(
            f"{name}.mp4" in saved and f"{name}.{other}" not in saved for name in "ab" for other in ("srt", "vtt")
        )
    assert number > 1
    assert {path.name for path in folder.iterdir()} == whole
    assert (folder / "a.srt").read_text() == SRT
    assert {path for one in outcomes.values() for path in one.captions_paths} <= {folder / name for name in whole}
    assert service.posts == 2
    # A new name gets copies.
    renamed = [a2v.Job("m", JOBS[0].audio_url, name="c", options=JOBS[0].options)]
    outcome = (await run_batch(make_client, tmp_path, renamed))["c"]
    assert outcome.captions_paths == (folder / "c.srt", folder / "c.vtt")
    assert (folder / "c.vtt").read_text() == VTT
    assert service.posts == 2


async def test_names_in_a_batch(service, make_client, tmp_path) -> None:
    jobs = [a2v.Job("m", AUDIO, name="a", options={"captions": "files", "container": one}) for one in ("mp4", "webm")]
    with pytest.raises(a2v.ManifestError, match=r"used more than once: a$"):
        await run_batch(make_client, tmp_path, jobs)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.srt").write_text("mine")
    with pytest.raises(a2v.DownloadError, match=r"a\.srt exists already"):
        await run_batch(make_client, tmp_path, jobs[:1])
    assert service.posts == 0
