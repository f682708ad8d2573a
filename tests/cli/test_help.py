"""Help texts, suggestions for mistyped commands, and durations."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from typing import get_args

import pytest
from rich.console import Console

from a2v.cli.commands import app
from a2v.cli.help import ASKING, CHECKING, DEMO, OFFLINE, SUBMITTING
from a2v.engine import Settings

COMMANDS = {
    "demo": DEMO,
    "characters": ASKING,
    "avatars": ASKING,
    "generate": SUBMITTING,
    "videos": ASKING,
    "get": ASKING,
    "watch": ASKING,
    "download": ASKING,
    "batch": SUBMITTING,
    "manifest": OFFLINE,
    "journal": OFFLINE,
    "serve": CHECKING,
    "doctor": CHECKING,
}


def help_of(*command: str, width: int = 80) -> str:
    terminal = io.StringIO()
    app.help_print(list(command), console=Console(file=terminal, width=width))
    return terminal.getvalue()


@pytest.mark.parametrize(("command", "codes"), COMMANDS.items())
def test_each_command_has_examples_and_its_own_exit_codes(command, codes) -> None:
    text = help_of(command)
    examples = re.search(r"\nExamples:\n((?:  .+\n)+)", text)[1].splitlines()
    assert all(example.startswith(f"  a2v {command}") for example in examples)
    assert tuple(int(code) for code in re.findall(r"^  (\d+) +\S", text, re.MULTILINE)) == codes


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal_and_breaks_no_lines_of_its_own(command, width) -> None:
    text = help_of(*([command] if command else []), width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    if command:
        # A line of an option ends early only if the next word does not fit, or its text is complete.
        inside = [line for line in lines if line.startswith("│")]
        for line, following in pairwise(inside):
            column = re.match(r"│ +", following)
            if column and len(column[0]) > 8 and not re.match(r"│ +\[", following):
                word = following[len(column[0]) :].split()[0]
                assert len(line[:-1].rstrip()) + len(word) + 3 > width, line


def test_help_uses_the_words_and_numbers_of_the_rest() -> None:
    for command in ("", *COMMANDS):
        assert not re.search("refus", help_of(*([command] if command else [])), re.IGNORECASE), command
    hosted = Settings(like_hosted=True)
    text = re.search(r"--like-hosted +(.*?)│ +--", help_of("serve", width=400), re.DOTALL)[1]
    assert f"texts of up to {hosted.text_limit} characters" in text
    (shell,) = (one for one in app["--install-completion"].assemble_argument_collection() if one.name == "--shell")
    shells = {choice for part in get_args(shell.hint) or [shell.hint] for choice in get_args(part)}
    assert shells >= {"bash", "powershell"}
    assert all(one in help_of("--install-completion").lower() for one in shells)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("list", "videos"),
        ("poses", "avatars"),
        ("render", "generate"),
        ("carachters", "characters"),
        ("server", "serve"),
    ],
)
def test_a_command_that_there_is_not(here, word, meant) -> None:
    code, _, err = here(word)
    assert (code, f'Did you mean "{meant}"?' in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0.5", 0.5), ("0.5s", 0.5), ("0.0001h", 0.36), ("0.005m", 0.3), ("0m0.4s", 0.4), ("0.001 min 0.3 S", 0.36)],
)
def test_durations(here, service, text, seconds) -> None:
    service.poll_statuses = ["pending"]
    service.add_video("v1", "pending")
    code, _, err = here("watch", "v1", "--timeout", text)
    assert (code, err.splitlines()[0]) == (4, f"a2v: --timeout expired after {seconds:g} s while waiting for video v1")


@pytest.mark.parametrize("text", ["x", "10x", "1 2", "-1", "0", "0m", "none", "1h 2", "m"])
@pytest.mark.parametrize("command", [["watch", "v1", "--timeout"], ["serve", "--max-render-seconds"]])
def test_what_is_no_duration(here, service, command, text) -> None:
    code, _, err = here(*command, text)
    assert (code, service.calls) == (2, ())
    assert f"Invalid value for {command[-1]}: " in err
    assert "duration" in err
