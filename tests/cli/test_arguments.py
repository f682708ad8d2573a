"""Arguments that cannot be right are refused with code 2 and one line, before anything is done."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import openpyxl
import pytest
from cyclopts import CycloptsError

from a2v.cli.commands import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cyclopts import App, Argument

URL = "https://example.com/a.wav"
LONG = "a" * 300


@pytest.fixture(autouse=True)
def manifest(tmp_path):
    (tmp_path / "jobs.csv").write_text(f"model_id,audio_url\neva_a0008,{URL}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch", "jobs.csv", "-o", ""],
        ["batch", "jobs.csv", "--output="],
        ["batch", "jobs.csv", "-o", "videos", "--journal", ""],
        ["batch", "jobs.csv", "-o", "videos", "--report="],
        ["characters", "--base-url", ""],
        ["characters", "--local", "--data-dir", ""],
        ["characters", "--token-file", ""],
        ["generate", URL, "--model-id", "eva_a0008", "-o", ""],
        ["serve", "--host", ""],
        ["get", ""],
        [""],
    ],
)
def test_an_empty_argument(here, service, tmp_path, arguments) -> None:
    """It comes of a variable that is not set, and would mean the current folder or a default."""
    code, out, err = here(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("a2v: empty argument after ")
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.csv"]
    assert not service.calls


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["batch", "jobs.csv", "-o", "videos", "--journal", "."], "is a folder"),
        (["batch", "jobs.csv", "-o", "videos", "--journal", LONG], "long"),
        (["batch", "jobs.csv", "-o", LONG], "long"),
        (["batch", f"{LONG}.csv", "-o", "videos"], "long"),
        (["characters", "--local", "--data-dir", LONG], "long"),
        (["generate", URL, "--model-id", "eva_a0008", "-o", LONG], "long"),
        (["generate", LONG, "--model-id", "eva_a0008", "-o", "a.mp4", "--local"], "nor a file"),
        (["journal", LONG], ""),
        (["generate", URL, "--model-id", "eva_a0008", "--size", "0"], "size"),
        (["generate", URL, "--model-id", "eva_a0008", "--fps", "29"], "fps"),
        (["characters", "--characters", "."], "no engine to configure: add --local, or remove --characters\n"),
        (["characters", "--local", "--insecure"], "with its own token: remove --insecure\n"),
        (
            ["get", "v1", "--local", "--base-url", URL, "--insecure", "--budget", "b"],
            "remove --base-url, --insecure and --budget\n",
        ),
        (["batch", "jobs.csv", "-o", "v", "--local", "--remove-staged"], "of this machine: remove --remove-staged\n"),
        (["doctor", "--local", "--token-file", "t"], "--local checks this machine: remove --token-file\n"),
    ],
)
def test_paths_and_numbers_that_cannot_be(here, service, arguments, named) -> None:
    code, out, err = here(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("a2v: ")
    assert named in err
    assert not service.calls


def test_hidden_rows_are_reported(here, service, tmp_path) -> None:
    book = openpyxl.Workbook()
    for row in [["model_id", "audio_url"], ["eva_a0008", URL], ["eva_a0008", f"{URL}?2"]]:
        book.active.append(row)
    book.active.row_dimensions[3].hidden = True
    book.save(tmp_path / "jobs.xlsx")

    code, out, err = here("batch", "jobs.xlsx", "-o", "videos", "--dry-run")

    assert code == 0
    assert err == "a2v: jobs.xlsx: hidden rows were skipped: 3\n"
    assert "submit 1 video" in out

    book.active.row_dimensions[2].hidden = True
    book.save(tmp_path / "jobs.xlsx")
    assert "no job in it, except in hidden rows, which are skipped: 2, 3" in here("batch", "jobs.xlsx", "-o", "v")[2]


def commands_with_arguments(commands: App, *words: str) -> Iterator[list[str]]:
    """Yield each command with an argument that must not begin with a dash, and its required options."""
    for word in commands:
        if not word.startswith("-"):
            yield from commands_with_arguments(commands[word], *words, word)
    arguments = commands.assemble_argument_collection() if commands.default_command else []
    if any(one.index is not None and not one.parameter.allow_leading_hyphen for one in arguments):
        yield [*words, *(f"{one.name}=v.mp4" for one in arguments if one.required and one.index is None)]


@pytest.mark.parametrize("word", ["-lead.flac", "-vlead.flac", "-lead", "--lead"])
def test_a_file_whose_name_begins_with_a_dash(here, service, tmp_path, word) -> None:
    (tmp_path / word).write_bytes(b"")
    found = list(commands_with_arguments(app))
    assert {"generate", "batch", "manifest", "journal", "character"} < {command[0] for command in found}
    for command in found:
        code, _, err = here(*command, "other.flac", word, "--json")
        assert code == 2
        assert err.endswith(f" If {word} is a file, write .{os.sep}{word}.\n")
    code, _, err = here("generate", "https://x/1.wav", "--model-id", "m", "-o", word)
    assert (code, err.endswith(f"-o requires an argument. If {word} is a file, write .{os.sep}{word}.\n")) == (2, True)
    (tmp_path / word).unlink()
    for other in ("--speed=1.5", "-x"):
        assert "is a file" not in here("generate", "a.wav", other)[2]


def options(commands: App, *words: str) -> Iterator[tuple[list[str], Argument]]:
    """Yield each option, after the words of its command and what that requires."""
    for word in commands:
        if not word.startswith("-"):
            yield from options(commands[word], *words, word)
    arguments = commands.assemble_argument_collection() if commands.default_command else []
    for argument in arguments:
        if argument.name.startswith("--"):
            others = [other.name for other in arguments if other.required and other is not argument]
            before = [word for name in others for word in ([name, "x"] if name.startswith("-") else ["x"])]
            yield [*words, *before], argument


def is_integer(hint: object) -> bool:
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        return all(isinstance(choice, int) for choice in choices)
    return hint is int or any(map(is_integer, choices))


def test_no_integer_is_rounded(here) -> None:
    found = [
        (command, option.name)
        for command, option in options(app)
        if is_integer(option.hint) and not option.parameter.count
    ]
    assert {"--seed", "--size", "--fps", "--port", "--limit"} < {option for _, option in found}
    for command, option in found:
        for value in ("25.4", "511.9", "1.0"):
            with pytest.raises(
                CycloptsError, match=f"^Invalid value for {option}: '{value}' is not an integer; write "
            ):
                app.parse_args([*command, option, value])
    assert here("character", "new", "nora", "--seed", "1.5") == (
        2,
        "",
        "a2v: Invalid value for --seed: '1.5' is not an integer; write it without a decimal point\n",
    )


def test_a_tilde_is_expanded_in_each_option_with_a_path(monkeypatch, tmp_path) -> None:
    """Shells do not expand it in ``--option=~/file``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = [
        (command, option.name)
        for command, option in options(app)
        if re.search("FILE|DIR", str(option.parameter.metavar)) or option.name in ("--background", "--like")
    ]
    assert {"--token-file", "--data-dir", "--report", "--tls-key"} < {option for _, option in found}
    for command, option in found:
        _, bound, _ = app.parse_args([*command, f"{option}=~/file"])
        assert str(tmp_path / "home" / "file") in str(bound), option
    for command in (["generate"], ["journal"], ["character", "check"]):
        _, bound, _ = app.parse_args([*command, "~/file"])
        assert str(tmp_path / "home" / "file") in str(bound), command
