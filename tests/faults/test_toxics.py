"""Every toxic against every call, at the first request and in the middle of things.

Many cells are played at once, each with a client and a port of its own, because most of the time is spent waiting. The
default set plays each fault in one scenario; the extended set plays the full matrix, with one test for each cell.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from traceback import format_exception

import anyio
import pytest
from attrs import define, field

import a2v

from .conftest import CANARY, check
from .server import VIDEO, VIDEO_ID, Connection, FaultServer, Port, Request
from .toxics import GET, OK, POISONS, UNKNOWN, Outcome, Poison

pytestmark = pytest.mark.both_backends

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}
AFTERWARDS = {"model_id": "eva_a0008", "audio_url": "https://example.com/afterwards.wav"}
PENDING, FINISHED = {"status": "pending", "video_url": None}, {"status": "finished"}
# So many toxics at once: a machine that is busy elsewhere must not make a good reply late.
AT_ONCE = 24

CALLS: dict[str, Callable[[a2v.AsyncA2V], Awaitable[object]]] = {
    "character.list": lambda client: client.characters.list(),
    "video.get": lambda client: client.videos.get(VIDEO_ID),
    "video.generate": lambda client: client.videos.generate(**JOB),
}


@define
class Cell:
    """A client and a port for one toxic."""

    port: Port
    poison: Poison
    folder: Path

    def client(self, **settings: object) -> a2v.AsyncA2V:
        # Where nothing waits for it to pass, it is never reached.
        timeout = 1.5 if self.poison.stalls else 15.0
        return a2v.AsyncA2V(CANARY, **{"base_url": self.port.url, "rate_limit": None, "timeout": timeout, **settings})

    def strike(self, call: str) -> None:
        self.port.poison(self.at(call), self.poison.toxic)

    def at(self, call: str) -> str:
        return "connection" if self.poison.at == "connection" else call


async def ends(work: Awaitable[object], *expected: type[a2v.A2VError] | None) -> object:
    """It ends in time, with what is documented: an error, or its value."""
    outcome: object = None
    error: a2v.A2VError | None = None
    with anyio.fail_after(20):
        try:
            outcome = await work
        except a2v.A2VError as caught:
            error = caught
    assert (type(error) if error else None) in expected, repr(error or outcome)
    if error is None:
        return outcome
    check(error)
    return error


async def is_usable(cell: Cell, client: a2v.AsyncA2V) -> None:
    """The client is none the worse, and nothing was submitted twice."""
    if not cell.poison.holds:
        await cell.port.until(lambda: cell.port.is_listening)
        with anyio.fail_after(20):
            # The timeout for servers that stall is too short for a healthy one on a busy machine.
            patient = client.with_options(timeout=15)
            assert (await patient.characters.list())[0].model_id == "eva_a0008"
            await patient.videos.generate(**AFTERWARDS)
    submitted = [b"afterwards" in body for body in cell.port.submitted]
    assert submitted.count(True) == (not cell.poison.holds)
    assert submitted.count(False) <= 1


# -- scenarios -------------------------------------------------------------------------------------------------------


async def first(cell: Cell, call: str) -> None:
    cell.strike(call)
    expected = cell.poison.get if call in GET else cell.poison.post
    async with cell.client(max_retries=0) as client:
        error = await ends(CALLS[call](client), *expected)
        if isinstance(error, UNKNOWN):
            assert error.job == a2v.Job(**JOB)
        await is_usable(cell, client)


async def amid(cell: Cell, call: str) -> None:
    """While somebody waits for a video, who is not disturbed."""
    cell.port.poll_answers = [PENDING]
    # It may take the connection of the wait, and one that was kept and breaks is replaced.
    expected = (*cell.poison.get, None) if call in GET else cell.poison.post
    async with cell.client(max_retries=0) as client, anyio.create_task_group() as group:
        group.start_soon(ends, client.videos.task("other").wait(), None)
        await cell.port.until(lambda: cell.port.requests)
        cell.strike(call)
        await ends(CALLS[call](client), *expected)
        cell.port.poll_answers = [FINISHED]
        await is_usable(cell, client)


async def watch_first(cell: Cell, call: str) -> None:
    async with cell.client() as client:
        task = await client.videos.generate(**AFTERWARDS)
        cell.strike(call)
        await _ends_as_watched(task.wait(), cell)


async def watch_amid(cell: Cell, call: str) -> None:
    cell.port.poll_answers, cell.port.keeps = [PENDING], False
    async with cell.client() as client:
        task = await client.videos.generate(**AFTERWARDS)
        looks = task.watch()
        assert (await anext(looks)).status is a2v.VideoStatus.PENDING
        cell.strike(call)
        cell.port.poll_answers = [FINISHED]
        await _ends_as_watched(anext(looks), cell)
        await looks.aclose()


async def _ends_as_watched(work: Awaitable[object], cell: Cell) -> None:
    ended = await ends(work, cell.poison.watch)
    assert not cell.port.poisoned
    assert ended.video_id == VIDEO_ID
    assert isinstance(ended, a2v.A2VError) or ended.status is a2v.VideoStatus.FINISHED
    assert len(cell.port.submitted) == 1


async def file_first(cell: Cell, call: str) -> None:
    async with cell.client() as client:
        task = client.videos.task(VIDEO_ID)
        await task.refresh()
        cell.strike(call)
        await _is_fetched(task, cell, cell.poison.file)


async def file_amid(cell: Cell, call: str) -> None:
    """Half of it has come when the connection breaks, and what asks for the rest meets the toxic."""

    async def half(conn: Connection, _: Request | None) -> None:
        await conn.send(OK + f'ETag: "abc"\r\nContent-Length: {len(VIDEO)}\r\n\r\n'.encode() + VIDEO[:30_000])
        cell.strike(call)

    async with cell.client() as client:
        cell.port.poison("file", half)
        await _is_fetched(
            client.videos.task(VIDEO_ID), cell, expected=None if cell.poison.expires else cell.poison.file
        )


async def _is_fetched(task: a2v.AsyncVideoTask, cell: Cell, expected: Outcome) -> None:
    path = cell.folder / f"{cell.port.number}.mp4"
    fetched = await ends(task.download(path), expected)
    assert not cell.port.poisoned
    left = [each.name for each in cell.folder.iterdir() if str(cell.port.number) in each.name]
    assert left == ([path.name] if fetched == path else [])
    assert not left or path.read_bytes() == VIDEO
    files = [request for request in cell.port.requests if request.call == "file"]
    assert not any({"authorization", "cookie"} & request.headers.keys() for request in files)


SCENARIOS: dict[str, tuple[Callable[[Cell, str], Awaitable[None]], str]] = {
    "list, first": (first, "character.list"),
    "list, amid": (amid, "character.list"),
    "get, first": (first, "video.get"),
    "generate, first": (first, "video.generate"),
    "generate, amid": (amid, "video.generate"),
    "watch, first": (watch_first, "video.get"),
    "watch, amid": (watch_amid, "video.get"),
    "download, first": (file_first, "file"),
    "download, amid": (file_amid, "file"),
}


def meets(scenario: str, poison: Poison) -> bool:
    """Whether a toxic makes sense there. What holds the client for a minute is tested under virtual time."""
    play, call = SCENARIOS[scenario]
    if call not in poison.calls or (poison.holds and play is not first):
        return False
    # A kept connection is used for it.
    return not (poison.at == "connection" and scenario == "list, amid")


# -- running them ----------------------------------------------------------------------------------------------------

BACKENDS = ("asyncio", "trio")
MATRIX = [
    (backend, scenario, name)
    for backend in BACKENDS
    for scenario in SCENARIOS
    for name in POISONS
    if meets(scenario, POISONS[name])
]


def diagonal() -> list[tuple[str, str, str]]:
    """One cell per fault: the scenarios take turns, and so do the backends."""
    cells = []
    for number, name in enumerate(POISONS):
        scenarios = [scenario for scenario in SCENARIOS if meets(scenario, POISONS[name])]
        cells.append((BACKENDS[number % 2], scenarios[number // 2 % len(scenarios)], name))
    return cells


@define
class Findings:
    """What became of some cells: the faults that a scenario did not survive, and what was left behind."""

    failed: dict[tuple[str, str], BaseException] = field(factory=dict)
    left: list[str] = field(factory=list)


async def play_all(cells: list[tuple[str, str]], faults: FaultServer, folder: Path) -> Findings:
    findings, room = Findings(), anyio.CapacityLimiter(AT_ONCE)
    before = set(anyio.get_running_tasks())

    async def meet(scenario: str, name: str) -> None:
        play, call = SCENARIOS[scenario]
        async with room:
            cell = Cell(faults.port(), POISONS[name], folder)
            try:
                await play(cell, call)
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # told by its own test
                findings.failed[scenario, name] = error
            try:
                await cell.port.emptied()
            except TimeoutError:
                findings.left.append(f"{cell.port.open} connections after {scenario}, {name}")
            cell.port.close()

    async with anyio.create_task_group() as group:
        for cell in cells:
            group.start_soon(meet, *cell)
    findings.left += [f"task {task.name}" for task in anyio.get_running_tasks() if task not in before]
    return findings


def descriptors() -> set[str]:
    """What files and sockets this process has open."""
    found = set()
    for link in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            found.add(f"{link.name} {link.readlink()}")
    return found


@pytest.fixture(scope="module")
def findings(faults: FaultServer) -> Callable[..., Findings]:
    """Plays cells that run next to each other, once for all the tests that ask for them."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Findings] = {}

    def find(backend: str, cells: list[tuple[str, str]]) -> Findings:
        key = backend, tuple(cells)
        if key not in found:
            with tempfile.TemporaryDirectory() as folder:
                before = descriptors()
                result = anyio.run(play_all, cells, faults, Path(folder), backend=backend)
                result.left += sorted(fd for fd in descriptors() - before if "socket" in fd or folder in fd)
            found[key] = result
        return found[key]

    return find


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_fault_once(findings: Callable[..., Findings], backend: str) -> None:
    """Every fault and every scenario, though not each with each: that is the extended matrix below."""
    assert {scenario for _, scenario, _ in diagonal()} == set(SCENARIOS)
    result = findings(backend, [(scenario, name) for on, scenario, name in diagonal() if on == backend])
    assert result.failed == {}
    assert result.left == []


@pytest.mark.extended
class TestToxics:
    @pytest.mark.parametrize(("backend", "scenario", "name"), MATRIX)
    def test_it_ends_as_documented(self, findings, backend, scenario, name) -> None:
        failure = findings(backend, self.row(backend, scenario)).failed.get((scenario, name))
        assert failure is None, "".join(format_exception(failure))

    @pytest.mark.parametrize("scenario", SCENARIOS)
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_nothing_is_left(self, findings, backend, scenario) -> None:
        assert findings(backend, self.row(backend, scenario)).left == []

    def row(self, backend: str, scenario: str) -> list[tuple[str, str]]:
        return [(scenario, name) for on, of, name in MATRIX if (on, of) == (backend, scenario)]


SAMPLE = ["resets_after_the_request", "stalls_in_the_body", "bad chunk", "HTML", "nested 200,000 deep", "502", "401"]


@pytest.mark.parametrize("name", SAMPLE)
def test_the_sync_client(port: Port, tmp_path: Path, name: str) -> None:
    """It is the same client: a sample."""
    poison = POISONS[name]
    settings = {"base_url": port.url, "rate_limit": None, "timeout": 1.5 if poison.stalls else 15.0}
    threads = set(threading.enumerate())
    with a2v.A2V(CANARY, max_retries=0, **settings) as client:
        for call, work, expected in (
            ("character.list", client.characters.list, poison.get),
            ("video.generate", lambda: client.videos.generate(**JOB), poison.post),
        ):
            port.poison(call, poison.toxic)
            with pytest.raises(expected) as caught:
                work()
            check(caught.value)
        assert client.with_options(timeout=15).characters.list()
        assert len(port.submitted) == 1
    with a2v.A2V(CANARY, **settings) as client:
        task = client.videos.task(VIDEO_ID)
        port.poison("video.get", poison.toxic)
        if poison.watch:
            with pytest.raises(poison.watch):
                task.wait()
        assert task.wait().status is a2v.VideoStatus.FINISHED
        if "file" in poison.calls:
            port.poison("file", poison.toxic)
        assert task.download(tmp_path / "v.mp4").read_bytes() == VIDEO
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive()


def test_there_are_as_many_as_the_documentation_says() -> None:
    page = Path(__file__).parents[2].joinpath("docs/reliability.md").read_text(encoding="utf-8")
    assert f"{len(POISONS)} faults" in page
    assert f"{len(MATRIX):,} cells" in page
