"""The token that ``--local --data-dir`` keeps in the folder."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from a2v.cli.commands import run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes links and pipes the POSIX way")


def use(folder, capsys) -> tuple[int, str]:
    code = run(["characters", "--local", "--data-dir", str(folder)])
    return code, capsys.readouterr().err


def plant(path, kind: str) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("planted-by-another-user")
    elsewhere.chmod(0o600)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "dangling link":
        path.symlink_to(path.with_name("nowhere"))
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(mode=0o700)
    else:
        path.write_bytes(
            {"empty": b"", "blank": b" \n", "no text": b"\xff\xfe", "open": b"planted-by-another-user"}[kind]
        )
        path.chmod(0o666 if kind == "open" else 0o600)


@pytest.mark.parametrize("kind", ["empty", "blank", "no text", "open", "link", "dangling link", "pipe", "folder"])
def test_a_token_that_another_user_may_have_planted_is_refused(kind, tmp_path, capsys):
    plant(tmp_path / "token", kind)
    code, said = use(tmp_path, capsys)
    assert code == 2
    assert f"{tmp_path / 'token'} " in said
    assert "remove it" in said
    assert "planted" not in said
    assert not (tmp_path / "nowhere").exists()


def test_it_is_made_once_for_us_alone(tmp_path, capsys):
    before = os.umask(0)
    try:
        assert use(tmp_path / "data", capsys)[0] == 0
    finally:
        os.umask(before)
    token = tmp_path / "data" / "token"
    content = token.read_text()
    assert len(content) >= 32
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert use(tmp_path / "data", capsys)[0] == 0
    assert token.read_text() == content


def test_a_wrong_token_is_explained_in_terms_of_the_command_line(here, service):
    service.refuse("character.list", 401, "send it as 'Authorization: Bearer <token>'", times=None)
    code, _, err = here("characters")
    assert (code, err.splitlines()[-1]) == (1, "Check the token: it is that of A2V_TOKEN, or of --token-file FILE.")
