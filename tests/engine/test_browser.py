"""The page as a browser sees it: headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

import a2v.engine
from a2v.engine import LocalEngine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.extended, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]

CLIP = next((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"))
# No sandbox: Chromium has none as root, and the page is our own.
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--mute-audio",
    "--remote-debugging-pipe",
]


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
    """The part of the DevTools protocol that these tests need, over two pipes: a port could be in use by another test."""

    def __init__(self, asks: int, output: int) -> None:
        self._asks = asks
        self._output = output
        self._unread = b""
        self._asked = 0
        self._session: dict[str, str] = {}
        self._events: list[dict[str, object]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, object]:
        self._asked += 1
        asked = {"id": self._asked, "method": method, "params": params, **self._session}
        os.write(self._asks, json.dumps(asked).encode() + b"\0")
        reply = self._until(lambda message: message.get("id") == self._asked)
        assert "error" not in reply, reply
        return reply["result"]

    def _until(self, fits: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        while not fits(message := self._next()):
            self._events.append(message)
        return message

    def _next(self) -> dict[str, object]:
        while b"\0" not in self._unread:
            assert select.select([self._output], [], [], 60)[0], "the browser is silent"
            more = os.read(self._output, 1 << 16)
            assert more, "the browser is gone"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        self._events.clear()
        self.call("Page.navigate", url=url)
        if not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> object:
        """Return the value of a JavaScript expression, which may be a promise."""
        reply = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def emulate(self, method: str, **params: object) -> None:
        self.call(f"Emulation.{method}", **params)

    def accessible(self) -> list[tuple[str, str]]:
        """Return the role and name of everything in the accessibility tree."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    def complaints(self) -> list[dict[str, object]]:
        """Return the messages of the browser's console since the page was opened."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event["params"] for event in self._events if event["method"] in kinds]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    arguments = [*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]
    # It reads from descriptor 3 and writes to 4.
    command = ["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1', CHROMIUM, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            browser = Browser(process.stdin.fileno(), process.stdout.fileno())
            yield browser
            browser.call("Browser.close")
        finally:
            process.terminate()


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
    width, height, seconds = open_page.evaluate(PLAY)
    assert (width, height) == (512, 512)
    assert 2 <= seconds <= 6
    finished = next(video for video in shown[1] if video["status"] == "finished")
    assert open_page.evaluate("[...document.querySelectorAll('video')].map(video => video.src)") == [
        finished["video_url"]
    ]


def test_every_image_loads_and_everything_comes_from_the_engine(open_page, shown):
    # Otherwise the poses of the characters that are not chosen stay hidden, and unloaded.
    open_page.evaluate("document.querySelectorAll('.poses').forEach(group => { group.hidden = false; })")
    widths = open_page.evaluate(LOADED)
    assert len(widths) >= 18
    assert set(widths) == {512}
    fetched = open_page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(fetched) >= 18
    assert all(url.startswith(shown[0]) for url in fetched)


def test_the_browser_reports_no_errors(open_page):
    """The policy blocks nothing of the page itself; a blocked style would be reported in the console."""
    open_page.evaluate(LOADED)
    assert open_page.complaints() == []
    assert open_page.evaluate("getComputedStyle(document.querySelector('.grid')).display") == "grid"


def test_the_content_security_policy_blocks_foreign_content(open_page):
    refused = open_page.evaluate(
        """new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective), {once: true});
            document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/foreign.png"}));
        })"""
    )
    assert refused == "img-src"


@pytest.mark.parametrize(("width", "columns"), [(320, 1), (768, 3), (1280, 3)])
def test_it_fits_the_screen(open_page, width, columns):
    open_page.emulate("setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
    try:
        assert open_page.evaluate("document.documentElement.scrollWidth") <= width
        shown = "getComputedStyle(document.querySelector('.grid')).gridTemplateColumns.split(' ').length"
        assert open_page.evaluate(shown) == columns
    finally:
        open_page.emulate("clearDeviceMetricsOverride")


def test_no_letter_of_the_heading_is_clipped(open_page):
    """The colours of the heading end with its box, so the box must be as high as its letters."""
    heading = """(() => {
        const heading = document.querySelector("h1"), style = getComputedStyle(heading);
        const context = document.createElement("canvas").getContext("2d");
        context.font = style.font;
        const letters = context.measureText(heading.textContent);
        const line = parseFloat(style.lineHeight), content = letters.fontBoundingBoxAscent + letters.fontBoundingBoxDescent;
        const below = (line - content) / 2 + letters.fontBoundingBoxDescent + parseFloat(style.paddingBottom);
        return below - letters.actualBoundingBoxDescent;
    })()"""
    assert open_page.evaluate(heading) >= 0


# The lowest contrast of text with its background, by the formula of WCAG 2.
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


def test_light_and_dark_schemes_have_enough_contrast(open_page):
    seen = {}
    for scheme in ("light", "dark"):
        open_page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen[scheme] = open_page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert open_page.evaluate(CONTRAST) >= 4.5
    assert seen["light"] != seen["dark"]


def test_everything_has_a_label_for_screen_readers(open_page):
    message = open_page.accessible()
    assert {("heading", "New video"), ("heading", "Videos")} <= set(message)
    assert [name for role, name in message if role == "Video"] == [f"Eva 01, Close-up: {CLIP.name}"]
    assert {"Eva 01", "Leo"} <= {name for role, name in message if role == "radio"}
    assert "" not in {name for role, name in message if role in ("Video", "link", "heading", "radio", "button")}
    assert {"banner", "main", "contentinfo"} <= {role for role, _ in message}


def test_each_video_shows_its_recording_length_age_and_download(open_page, shown):
    until(open_page, "document.querySelector('.card:not(.small) .length').textContent", "0:0")
    text, link, name = open_page.evaluate("""(() => {
        const card = document.querySelector(".card:not(.small)"), link = card.querySelector("a[download]");
        return [card.innerText, link.href, link.download];
    })()""")
    assert CLIP.name in text
    assert re.search(r"Eva 01, Close-up\s+0:0\d\s+(just now|\d+ \w+\.? ago)", text)
    assert (link, name) == (shown[1][1]["video_url"], f"{CLIP.stem}.mp4")
    failed = open_page.evaluate("document.querySelector('.card.small').innerText")
    assert "failed" in failed
    assert "port 9 is not allowed" in failed


# A drop of files, as the browser reports it: a second of sound, and an empty file.
DROP = """((names) => {
    const transfer = new DataTransfer(), bytes = new DataView(new ArrayBuffer(44 + 32000));
    const text = (place, letters) => [...letters].forEach((one, index) => bytes.setUint8(place + index, one.charCodeAt()));
    text(0, "RIFF"); bytes.setUint32(4, 32036, true); text(8, "WAVEfmt "); bytes.setUint32(16, 16, true);
    bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true); bytes.setUint32(24, 16000, true);
    bytes.setUint32(28, 32000, true); bytes.setUint16(32, 2, true); bytes.setUint16(34, 16, true); text(36, "data");
    bytes.setUint32(40, 32000, true);
    for (let place = 44; place < 32044; place += 2) bytes.setInt16(place, 8000 * Math.sin(place / 9), true);
    for (const name of names) transfer.items.add(new File([name.startsWith("empty") ? "" : bytes], name));
    document.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
    return document.querySelector(".make").textContent;
})(%s)"""
NAME = "Lektion 11 – <b>Begrüßung.wav"


def until(browser: Browser, expression: str, expected: str) -> None:
    """Wait until the value of an expression contains a text."""
    end = time.monotonic() + 60
    while expected not in (found := str(browser.evaluate(expression))):
        assert time.monotonic() < end, f"{expression} is {found!r}, not {expected!r}"
        time.sleep(0.05)


def test_a_dropped_recording_becomes_a_video_without_a_reload(open_page):
    before = open_page.evaluate("document.querySelectorAll('.card').length")
    assert open_page.evaluate("document.querySelector('.make').disabled") is True
    assert open_page.evaluate(DROP % json.dumps([NAME, "empty.wav"])) == "Make the video"
    assert "The file is empty." in open_page.evaluate("document.querySelector('#files').innerText")
    open_page.evaluate("document.querySelectorAll('.poses:not([hidden]) input')[1].click()")
    open_page.evaluate("document.querySelector('.make').click()")
    until(open_page, "document.querySelector('.card h3').textContent", NAME)
    until(open_page, "document.querySelector('.card:first-child .actions')?.innerText", "Download")
    assert open_page.evaluate("document.querySelectorAll('.card').length") == before + 1
    assert "Close-up" in open_page.evaluate("document.querySelector('.card:first-child').innerText")
    assert open_page.evaluate("document.querySelector('#files').innerText").startswith("empty.wav")
    width, height, seconds = open_page.evaluate(PLAY)
    assert (width, height, seconds) == (512, 512, 1)
    assert open_page.complaints() == []


def test_a_playing_video_is_not_replaced_when_others_change(open_page):
    open_page.evaluate("window.kept = document.querySelector('.card video'); 0")
    open_page.evaluate(DROP % json.dumps(["another.wav"]))
    open_page.evaluate("document.querySelector('.make').click()")
    until(open_page, "document.querySelector('.card h3').textContent", "another.wav")
    until(open_page, "document.querySelector('.card:first-child .actions')?.innerText", "Download")
    assert open_page.evaluate("window.kept.isConnected") is True


def test_a_refusal_of_the_engine_is_shown_beside_the_recording(open_page):
    open_page.evaluate("document.querySelector('input[name=person]:checked').value = 'model_id:nobody'")
    open_page.evaluate("document.querySelector('.poses:not([hidden])')?.remove()")
    open_page.evaluate(DROP % json.dumps(["refused.wav"]))
    open_page.evaluate("document.querySelector('.make').click()")
    until(open_page, "document.querySelector('.note.failed')?.textContent", "there is no character 'nobody'")
    # It can be sent again.
    assert open_page.evaluate("document.querySelector('.make').disabled") is False


def test_the_page_says_when_the_engine_is_gone_and_goes_on_when_it_is_back(open_page):
    open_page.call("Network.enable")
    limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    open_page.call("Network.emulateNetworkConditions", offline=True, **limits)
    until(open_page, "document.querySelector('.banner').hidden", "False")
    assert "The engine does not respond" in open_page.evaluate("document.querySelector('.banner').innerText")
    open_page.call("Network.emulateNetworkConditions", offline=False, **limits)
    until(open_page, "document.querySelector('.banner').hidden", "True")
    assert open_page.evaluate("document.querySelector('.banner').offsetHeight") == 0
    # The list is followed again.
    open_page.evaluate(DROP % json.dumps(["afterwards.wav"]))
    open_page.evaluate("document.querySelector('.make').click()")
    until(open_page, "document.querySelector('.card h3').textContent", "afterwards.wav")
