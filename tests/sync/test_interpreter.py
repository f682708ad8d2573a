"""What only an interpreter of its own can show: signals, its exit, forks, other event loops around the client."""

from __future__ import annotations

import os
import signal
import sys
import textwrap

import pytest

from tests.sets import one_by_default

pytestmark = pytest.mark.both_backends

GENERATE = """
    client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/stuck.wav")
"""
WAIT = """
    client.videos.task("stuck").wait()
"""
WATCH = """
    for video in client.videos.watch("stuck"):
        pass
"""
# Between two looks, not within one.
WATCH_SLEEPING = """
    for video in client.videos.watch("slow"):
        say("ready")
"""
BATCH = """
    jobs = [a2v.Job("eva_a0008", f"https://example.com/{word}.wav") for word in ("one", "slow")]
    with client.batch(jobs) as batch:
        for outcome in batch:
            say("ready")
"""
ENTER = """
    from a2v._async.batch import batch
    async def in_thread(work):
        say("ready")
        await anyio.sleep_forever()
    batch.in_thread = in_thread
    with client.batch([a2v.Job("eva_a0008", "https://example.com/a.wav")], save_to="nowhere"):
        pass
"""
CLOSE = """
    async_client = client._wrapped
    class Stubborn(type(async_client)):
        async def __aexit__(self, *_):
            say("ready")
            await anyio.sleep(1)
    async_client.__class__ = Stubborn
    client.characters.list()
    client.close()
"""


class TestCtrlC:
    @pytest.mark.parametrize(
        "work",
        one_by_default(BATCH, GENERATE, WAIT, WATCH, WATCH_SLEEPING, ENTER),
        ids=["batch", "generate", "wait", "watch", "sleep", "enter"],
    )
    def test_it_comes_at_once_after_the_clean_up_and_the_client_stays_usable(self, interpreter, work):
        python = interpreter(
            f"""
from service import *
import time
client = client()
try:
{work}
except KeyboardInterrupt:
    say("interrupted", *client._wrapped._session._custom_transport.left)
    loop = client._bridge.loop_thread()
    while loop.shutdown_callbacks:  # between two looks it may hit the loop's body, and then the iterator is merely let go
        time.sleep(0.01)
    say(len(loop.shutdown_callbacks), client.characters.list()[0].model_id)
client.close()
"""
        )
        assert python.line() == "ready"
        python.interrupt()
        word, *left = python.line().split()
        assert word == "interrupted"
        expected = {GENERATE: ["generate"], WAIT: ["get"], WATCH: ["get"]}
        assert left == expected.get(work, [])
        assert python.end() == (0, "0 eva_a0008\n", "")

    def test_it_ends_a_wait_that_begins_at_the_same_moment(self, interpreter):
        """The system does not wake a thread that begins to wait just after it got a signal; ``interrupt_main`` never does."""
        python = interpreter(
            f"""
from service import *
import _thread, threading
client = client()
threading.Thread(target=lambda: (reached.wait(), _thread.interrupt_main())).start()
try:
{WAIT}
except KeyboardInterrupt:
    say("interrupted")
"""
        )
        assert python.line() == "ready"
        assert python.line() == "interrupted"
        assert python.end()[::2] == (0, "")

    def test_a_second_one_does_not_wait_for_the_clean_up(self, interpreter):
        python = interpreter(
            """
            from service import *
            client = client()
            try:
                client.videos.task("stubborn").wait()
            except KeyboardInterrupt:
                say("interrupted")
                finish.set()
            """
        )
        assert python.line() == "ready"
        python.interrupt()
        assert python.line() == "cleaning up"
        python.interrupt()
        assert python.line() == "interrupted"
        assert python.end()[::2] == (0, "")

    def test_unhandled_it_ends_the_program_as_usual(self, interpreter):
        python = interpreter(f"from service import *\nclient = client()\nif True:\n{GENERATE}")
        assert python.line() == "ready"
        python.interrupt()
        code, _, err = python.end()
        assert code == -signal.SIGINT
        name, note = err.strip().splitlines()[-2:]
        assert name == "KeyboardInterrupt"
        assert "the server may have accepted the render" in note
        assert "Warning" not in err

    def test_while_closing_it_comes_at_once(self, interpreter):
        python = interpreter(
            f"from service import *\nclient = client()\ntry:\n{CLOSE}\nexcept KeyboardInterrupt:\n    say('interrupted')"
        )
        assert python.line() == "ready"
        python.interrupt()
        assert python.line() == "interrupted"
        assert python.end()[::2] == (0, "")

    @pytest.mark.parametrize("times", [50, pytest.param(500, marks=pytest.mark.extended)])
    def test_many_at_any_instant_leave_nothing_behind(self, interpreter, times):
        python = interpreter(
            f"""
            times = {times}
            import random, threading
            from service import *
            import signal
            client = client()
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            hit = 0

            def work():
                client.characters.list()
                with client.videos.watch("one", "two") as videos:
                    next(videos)
                with client.batch([a2v.Job("m", "https://example.com/a.wav")]) as batch:
                    list(batch)

            for _ in range(times):
                try:
                    try:
                        # Once more a little later, as one that hits a finalizer is lost: Python can only print it.
                        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 8e-3), 0.05)
                        while True:
                            work()
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    hit += 1
            for _ in range(1000):
                loop = client._bridge.loop_thread()
                if not loop.shutdown_callbacks:
                    break
                threading.Event().wait(0.01)
            say(hit, len(loop.shutdown_callbacks), client.characters.list()[0].model_id)
            client.close()
            """
        )
        code, out, err = python.end()
        assert (code, out) == (0, f"{times} 0 eva_a0008\n"), err

    @pytest.mark.parametrize("times", [25, pytest.param(100, marks=pytest.mark.extended)])
    def test_before_the_first_call_is_through_leaves_the_client_usable(self, interpreter, times):
        python = interpreter(
            f"""
            times = {times}
            import random
            from service import *
            from service import client as make
            import signal
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            for _ in range(times):
                client = make()
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-3))
                        client.characters.list()
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    pass
                assert client.characters.list()
                client.close()
            say("done")
            """
        )
        code, out, err = python.end()
        assert (code, out) == (0, "done\n"), err


class TestExit:
    @pytest.mark.parametrize(
        ("state", "expected"),
        one_by_default(
            (
                "threading.Thread(target=client.videos.task('stuck').wait, daemon=True).start(); reached.wait()",
                ["ready", "left: get closed"],
            ),
            ("pass", ["left:"]),
            ("client.characters.list()", ["left: closed"]),
            ("iterator = client.videos.watch('slow'); next(iterator)", ["left: closed"]),
            ("batch = client.batch([a2v.Job('m', 'https://example.com/slow.wav')]).__enter__()", ["left: closed"]),
        ),
        ids=["call", "unused", "idle", "iterator", "batch"],
    )
    def test_without_close_it_ends_cleanly(self, interpreter, state, expected):
        python = interpreter(
            f"""
            from service import *
            import threading
            import atexit
            threading.excepthook = lambda args: None  # a thread may or may not live to hear that the client is closed
            client = client()
            atexit.register(lambda: say("left:", *client._wrapped._session._custom_transport.left))
            {state}
            """
        )
        code, out, err = python.end()
        assert (code, err) == (0, "")
        assert out.splitlines() == expected

    def test_after_an_unhandled_exception(self, interpreter):
        python = interpreter(
            """
            from service import *
            client = client()
            for video in client.videos.watch("slow"):
                raise RuntimeError("oops")
            """
        )
        code, _, err = python.end()
        assert code == 1
        assert err.strip().splitlines()[-1] == "RuntimeError: oops"
        assert "Warning" not in err

    def test_a_blocked_client_does_not_keep_the_interpreter(self, interpreter):
        python = interpreter(
            """
            from service import *
            import time
            import a2v._sync.loop
            a2v._sync.loop.CLEANUP_TIMEOUT = 0.2
            client = client()
            client.characters.list()
            client._bridge.loop_thread().call_soon(lambda: time.sleep(60))
            """
        )
        assert python.end() == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
class TestFork:
    # Since 3.12 Python warns of every fork in a process with threads.
    IGNORE = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)"

    @pytest.fixture
    def run(self, interpreter, video_url):
        def run(script):
            client = f"client = lambda: A2V('t', base_url={video_url!r}, rate_limit=None)"
            python = interpreter(
                f"{self.IGNORE}\nimport os, sys\nfrom service import *\n{client}\n" + textwrap.dedent(script)
            )
            code, out, err = python.end()
            assert (code, err) == (0, ""), err
            return out.split()

        return run

    @pytest.mark.parametrize("before", one_by_default("client.characters.list()", "pass"), ids=["used", "unused"])
    def test_the_child_and_the_parent_both_work(self, run, before):
        script = f"""
            client = client()
            {before}
            if pid := os.fork():
                assert os.waitpid(pid, 0)[1] == 0
                say("parent", client.characters.list()[0].model_id)
            else:
                say("child", client.characters.list()[0].model_id)
            client.close()
        """
        assert run(script) == ["child", "eva_a0008", "parent", "eva_a0008"]

    def test_objects_opened_before_the_fork_belong_to_the_parent(self, run):
        script = """
            client = client()
            iterator = client.videos.watch("one", "two")
            first = next(iterator)
            batch = client.batch([])
            with batch:
                if pid := os.fork():
                    assert os.waitpid(pid, 0)[1] == 0
                else:
                    for call in (lambda: next(iterator), lambda: next(batch)):
                        try:
                            call()
                        except RuntimeError as error:
                            assert "before a fork" in str(error)
                            say("refused")
                    iterator.close()
                    del iterator
                    sys.exit()
            say(len(list(iterator)))
        """
        assert run(script) == ["refused", "refused", "1"]

    def test_multiprocessing(self, run):
        script = """
            import multiprocessing
            client = client()
            client.characters.list()

            def work(number):
                return client.characters.list()[0].model_id

            with multiprocessing.get_context("fork").Pool(2) as pool:
                say(*pool.map(work, range(4)))
        """
        assert run(script) == ["eva_a0008"] * 4

    def test_a_transport_of_the_callers_stays_with_the_parent(self, run):
        script = """
            import a2v
            client = A2V("t", base_url="http://127.0.0.1:9", transport=Service())
            client.characters.list()
            if pid := os.fork():
                assert os.waitpid(pid, 0)[1] == 0
                say("parent", client.characters.list()[0].model_id)
                client.close()
            else:
                try:
                    client.characters.list()
                except a2v.ConfigurationError as error:
                    assert "fork" in str(error)
                    say("refused")
        """
        assert run(script) == ["refused", "parent", "eva_a0008"]


class TestInsideOtherLoops:
    @pytest.mark.parametrize(
        "run",
        [
            "asyncio.run(main())",
            "trio.run(main)",
            pytest.param("anyio.run(main, backend='trio')", marks=pytest.mark.extended),
            pytest.param("anyio.run(main)", marks=pytest.mark.extended),
        ],
    )
    def test_it_just_works(self, interpreter, run):
        python = interpreter(
            f"""
            from service import *
            import asyncio
            import trio
            client = client()

            async def main():
                assert len(list(client.videos.watch("one", "two"))) == 2
                with client.batch([]) as batch:
                    assert list(batch) == []
                say(client.characters.list()[0].model_id)

            {run}
            client.close()
            """
        )
        assert python.end() == (0, "eva_a0008\n", "")


def test_it_is_this_python_that_is_started(interpreter):
    assert interpreter("import sys; print(sys.executable)").end() == (0, f"{sys.executable}\n", "")
