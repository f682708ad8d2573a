"""The log of ``a2v serve``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
from a2v.cli.logs import log_to_stderr
log_to_stderr(as_json=sys.argv[1] == "json")
loop = asyncio.new_event_loop()
for _ in range(1000):
    try:
        raise OSError(24, "Too many open files")
    except OSError as error:
        loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": error})
loop.call_exception_handler({"message": "something else"})
loop.close()
"""


@pytest.mark.parametrize("kind", ["json", "plain"])
def test_what_the_event_loop_repeats_is_one_line_in_the_same_form(kind):
    ran = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True)
    if kind == "json":
        lines = [json.loads(line) for line in ran.stderr.splitlines()]
        assert [line["message"] for line in lines] == ["socket.accept() out of system resource", "something else"]
        assert "Too many open files" in lines[0]["traceback"]
    else:
        assert ran.stderr.count(" ERROR socket.accept() out of system resource") == 1
        assert ran.stderr.count(" ERROR something else") == 1
