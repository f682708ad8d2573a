"""Runs a command on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

PROGRAM = (sys.executable, "-m", "a2v.cli")


def on_terminal(
    *arguments: str,
    environment: Mapping[str, str],
    cwd: Path,
    program: Sequence[str] = PROGRAM,
    stderr: IO[str] | None = None,
    on_output: Callable[[str], object] | None = None,
) -> tuple[int, str]:
    """Run a command with its output on a terminal.

    Args:
        *arguments: Its arguments.
        environment: Its environment.
        cwd: Its folder.
        program: The program.
        stderr: The file that gets standard error, if the terminal does not.
        on_output: Called with all that the terminal got so far.

    Returns:
        The exit code, and all that the terminal got.
    """
    import pty

    ours, theirs = pty.openpty()
    environment = {**environment, "TERM": "xterm", "COLUMNS": "200", "LINES": "30"}
    files = {"stdin": theirs, "stdout": theirs, "stderr": stderr or theirs}
    with subprocess.Popen([*program, *arguments], cwd=cwd, env=environment, **files) as process:
        os.close(theirs)
        got = b""
        try:
            while block := os.read(ours, 65536):
                got += block
                if on_output:
                    on_output(got.decode(errors="replace"))
        except OSError:  # how Linux says that the other end was closed
            pass
    os.close(ours)
    return process.returncode, got.decode()
