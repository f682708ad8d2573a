"""Paths as callers write them: absolute from the start, with ``~`` expanded or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import a2v
from a2v._core.file_urls import path_from_url
from a2v._values.arguments import path as checked_path


def test_a_relative_path_is_resolved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_path("path", "folder/v.mp4") == tmp_path / "folder" / "v.mp4"
    assert checked_path("path", Path("v.mp4")) == tmp_path / "v.mp4"
    assert checked_path("path", "/v.mp4") == Path("/v.mp4")


@pytest.mark.parametrize("path", ["~", "~/v.mp4", Path("~/videos/v.mp4")])
def test_the_home_folder(path: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked_path("path", path) == Path(str(path).replace("~", str(tmp_path), 1))


def test_a_tilde_elsewhere_is_a_character(tmp_path: Path) -> None:
    assert checked_path("path", tmp_path / "~" / "v~1.mp4") == tmp_path / "~" / "v~1.mp4"


@pytest.mark.parametrize("path", ["~nobody-of-this-name/v.mp4", "~nobody-of-this-name", Path("~draft.mp4")])
def test_no_such_home_folder(path: str | Path) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match="starts with ~"):
        checked_path("path", path)


def test_nul_is_refused() -> None:
    with pytest.raises(a2v.InvalidArgumentError, match="NUL"):
        checked_path("path", "v\0.mp4")


def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(a2v.InvalidArgumentError, match="current directory"):
        checked_path("path", "v.mp4")
    os.chdir(tmp_path)


def test_the_file_of_a_url() -> None:
    assert path_from_url("file:///a/b%20c.wav") == Path("/a/b c.wav")
    assert path_from_url("FILE:///a.wav") == Path("/a.wav")
    assert path_from_url("https://example.com/a.wav") is None
