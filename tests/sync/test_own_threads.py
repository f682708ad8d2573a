"""The sync client's threads: the end of a program, forks, and host names that cannot be resolved."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress

import pytest

import a2v
from a2v import testing
from tests.sets import one_by_default

# Longer than any test may take.
DEAD_DNS = """
import socket, sys, time
def dead(*_, **__): time.sleep(60); raise socket.gaierror(-3, "Temporary failure in name resolution")
socket.getaddrinfo = dead
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=50, check=False
    )


def test_a_name_server_that_does_not_answer_does_not_hold_up_the_end() -> None:
    done = run(
        DEAD_DNS + "import a2v\n"
        "client = a2v.A2V('token', base_url='https://api.example', timeout=0.5, max_retries=0)\n"
        "try: client.characters.list()\n"
        "except a2v.TransportError as error: print(error)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "no complete response within 0.5 s" in done.stdout


def test_nor_does_it_on_the_command_line(monkeypatch) -> None:
    monkeypatch.setenv("A2V_TOKEN", "token")
    done = run(
        DEAD_DNS + "from a2v.cli.commands import run\n"
        "sys.exit(run(['watch', 'v1', '--timeout', '0.5', '--base-url', 'https://api.example']))\n"
    )
    assert done.returncode == 4, done.stderr
    assert "v1" in done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.12 starts no thread once the main thread has ended")
def test_a_thread_that_outlives_the_main_thread_can_connect_to_a_name() -> None:
    with testing.Service().server() as server:
        done = run(
            "import sys, threading, time, a2v\n"
            "client = a2v.A2V('token', base_url=sys.argv[1])\n"
            "def work():\n"
            "    threading.main_thread().join()\n"
            "    print(len(client.characters.list()))\n"
            "threading.Thread(target=work).start()\n",
            server.base_url.replace("127.0.0.1", "localhost"),
        )
    assert (done.stdout.strip(), done.stderr) == ("1", "")


def test_a_first_call_imports_nothing_in_another_thread() -> None:
    """A process that is forked meanwhile would inherit the lock of a module that is never imported to its end."""
    with testing.Service().server() as server:
        done = run(
            "import sys, a2v\n"
            "client = a2v.A2V('token', base_url=sys.argv[1], max_retries=0)\n"
            "before = set(sys.modules)\n"
            "client.characters.list()\n"
            "try: a2v.A2V('token', base_url='https://localhost:9', max_retries=0).characters.list()\n"
            "except a2v.TransportError: pass\n"
            "print(sorted(set(sys.modules) - before))\n",
            server.base_url.replace("127.0.0.1", "localhost"),
        )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("loop", one_by_default(True, False), ids=["one call after another", "one call"])
def test_a_daemon_thread_within_a_call_is_silent_at_the_end_of_the_program(loop) -> None:
    calls = "while True: client.characters.list()" if loop else "client.videos.task('stuck').wait()"
    with testing.Service().server() as server:
        server.service.add_video("stuck", "pending")
        done = run(
            "import sys, threading, time, a2v\n"
            "client = a2v.A2V('token', base_url=sys.argv[1], rate_limit=None)\n"
            "def work():\n"
            f"    {calls}\n"
            "threading.Thread(target=work, daemon=True).start()\n"
            "client.characters.list()\n",
            server.base_url,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_function_for_the_end_of_the_program_can_join_such_a_thread() -> None:
    with testing.Service().server() as server:
        server.service.add_video("stuck", "pending")
        done = run(
            "import atexit, sys, threading, a2v\n"
            "client = a2v.A2V('token', base_url=sys.argv[1])\n"
            "thread = threading.Thread(target=client.videos.task('stuck').wait, daemon=True)\n"
            "atexit.register(lambda: (thread.join(), print('joined')))\n"
            "thread.start()\n"
            "client.characters.list()\n",
            server.base_url,
        )
    assert (done.stdout.strip(), done.stderr) == ("joined", "")


def test_closing_waits_for_a_thread_that_is_just_starting() -> None:
    service = testing.Service()

    def call(client: a2v.A2V) -> None:
        with suppress(a2v.ClientClosedError):
            client.characters.list()

    before = set(threading.enumerate())
    for _ in range(40):
        client = a2v.A2V("token", transport=service.transport())
        caller = threading.Thread(target=call, args=[client])
        caller.start()
        client.close()
        caller.join(30)
        assert not caller.is_alive()
        assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "a2v"]
