"""The page as a browser sees it: headless Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

import a2v.cli
from a2v.engine import LocalEngine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")

CLIP = next((Path(a2v.cli.__file__).parent / "clips").glob("*.flac"))
# No sandbox: it cannot be had as root, and what is shown is our own.
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio"]


@pytest.fixture(scope="module")
def shown():
    """An engine with a video of each kind on its page: its URL, and what ``video.list`` says."""
    with start_blocking_portal() as portal:
        running = LocalEngine(token="t", workers=1, allow_files=CLIP.parent)
        with (
            portal.wrap_async_context_manager(running) as engine,
            httpx.Client(base_url=engine.base_url, headers={"Authorization": "t"}) as client,
        ):
            for job in (
                {"pose_id": "eva_a0008_closeup", "audio_url": CLIP.as_uri()},
                {"model_id": "leo_a0047", "audio_url": "http://127.0.0.1:9/refused"},
            ):
                client.post("/v1/a2v/video.generate", json=job).raise_for_status()

            yield engine.base_url, _until_ended(client)


def _until_ended(client: httpx.Client) -> list[dict[str, str]]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        videos = client.get("/v1/a2v/video.list").json()["data"]
        if {video["status"] for video in videos} == {"finished", "error"}:
            return videos
        time.sleep(0.1)
    raise AssertionError(f"the videos do not end: {videos}")


class Browser:
    """As much of WebDriver as is needed here."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http = http
        self._session = session

    def _do(self, what: str, **body: object) -> object:
        reply = self._http.post(f"/session/{self._session}/{what}", json=body)
        assert reply.is_success, reply.text
        return reply.json()["value"]

    def open(self, url: str) -> None:
        self._do("url", url=url)

    def tell(self, expression: str) -> object:
        """The value of an expression of JavaScript, which may be a promise."""
        return self._do("execute/sync", script=f"return {expression}", args=[])

    def emulate(self, method: str, **params: object) -> object:
        return self._do("goog/cdp/execute", cmd=f"Emulation.{method}", params=params)

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of all that a screen reader is told of."""
        nodes = self._do("goog/cdp/execute", cmd="Accessibility.getFullAXTree", params={})["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._do("se/log", type="browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    command = [DRIVER, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver:
        try:
            started = next(line for line in driver.stdout if "started successfully on port" in line)
            port = started.strip().rstrip(".").rpartition(" ")[2]
            arguments = [*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]
            options = {"binary": CHROMIUM, "args": arguments}
            capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                asked = {"capabilities": {"alwaysMatch": capabilities}}
                session = http.post("/session", json=asked).json()["value"]["sessionId"]
                yield Browser(http, session)
                http.delete(f"/session/{session}")
        finally:
            driver.terminate()


@pytest.fixture
def open_page(browser, shown):
    browser.open(shown[0])
    return browser


PLAY = """(async () => {
    const video = document.querySelector("video");
    video.muted = true;
    await video.play();
    while (video.currentTime < 0.2) await new Promise(done => video.addEventListener("timeupdate", done, {once: true}));
    video.pause();
    return [video.videoWidth, video.videoHeight, Math.round(video.duration)];
})()"""
LOADED = """Promise.all([...document.images].map(image => { image.loading = "eager"; return image.decode(); }))
    .then(() => [...document.images].map(image => image.naturalWidth))"""


def test_videos_play(open_page, shown):
    width, height, seconds = open_page.tell(PLAY)
    assert (width, height) == (512, 512)
    assert 2 <= seconds <= 6
    finished = next(video for video in shown[1] if video["status"] == "finished")
    assert open_page.tell("[...document.querySelectorAll('video')].map(video => video.src)") == [finished["video_url"]]


def test_every_picture_is_there_and_all_comes_from_the_engine(open_page, shown):
    widths = open_page.tell(LOADED)
    assert len(widths) >= 18
    assert set(widths) == {512}
    fetched = open_page.tell("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(fetched) >= 18
    assert all(url.startswith(shown[0]) for url in fetched)


def test_the_browser_has_nothing_to_complain_about(open_page):
    """The policy refuses nothing of the page's own: with its style refused, this is where it would be told."""
    open_page.tell(LOADED)
    # Browsers ask for a picture of the site by themselves.
    assert [line for line in open_page.complaints() if "favicon.ico" not in line] == []
    assert open_page.tell("getComputedStyle(document.querySelector('.grid')).display") == "grid"


def test_what_is_foreign_is_refused(open_page):
    refused = open_page.tell(
        """new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective), {once: true});
            document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/foreign.png"}));
        })"""
    )
    assert refused == "img-src"


@pytest.mark.parametrize("width", [320, 768, 1600])
def test_it_fits_the_screen(open_page, width):
    open_page.emulate("setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
    try:
        assert open_page.tell("document.documentElement.scrollWidth") <= width
        columns = "getComputedStyle(document.querySelector('.people')).gridTemplateColumns.split(' ').length"
        assert open_page.tell(columns) == {320: 1, 768: 2, 1600: 3}[width]
    finally:
        open_page.emulate("clearDeviceMetricsOverride")


# The least contrast of text with what is behind it, by the formula of the accessibility guidelines (WCAG 2).
CONTRAST = """(() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgb = colour => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const light = colour => rgb(colour).map(value => value / 255)
        .map(value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [.2126, .7152, .0722][index], 0);
    const behind = element => { while (element) { const colour = getComputedStyle(element).backgroundColor;
        if (colour !== "rgba(0, 0, 0, 0)") return colour; element = element.parentElement; } };
    return Math.min(...[...document.querySelectorAll("p, h2, h3, span, a, code, time, footer")].map(element => {
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
        return (a + .05) / (b + .05); }));
})()"""


def test_by_day_and_by_night_it_can_be_read(open_page):
    seen = {}
    for scheme in ("light", "dark"):
        open_page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen[scheme] = open_page.tell("getComputedStyle(document.body).backgroundColor")
        assert open_page.tell(CONTRAST) >= 4.5
    assert seen["light"] != seen["dark"]


def test_a_screen_reader_can_tell_it(open_page):
    told = open_page.accessible()
    assert ("heading", "Latest videos") in told
    assert ("heading", "Characters") in told
    assert [name for role, name in told if role == "Video"] == ["Eva 01, Close-up speaking"]
    assert {"Eva 01", "Leo"} <= {name for role, name in told if role == "image"}
    assert "" not in {name for role, name in told if role in ("image", "Video", "link", "heading")}
    assert {"banner", "main", "contentinfo"} <= {role for role, _ in told}
