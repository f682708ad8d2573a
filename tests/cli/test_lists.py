"""``a2v videos``, and the pictures of ``a2v characters`` and ``a2v avatars``."""

from __future__ import annotations

import json
import threading
from base64 import standard_b64decode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from a2v import Character
from a2v.cli.pictures import Picture, can_show
from a2v.testing import Reply
from tests.terminal import on_terminal

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def pictures(service, tmp_path):
    """A server of pictures, and characters with some of them."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "eva.bin").write_bytes(PNG)
    (folder / "page.png").write_bytes(b"<html>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"

        def give(**names):
            service.characters = [
                Character(model_id=model_id, preview_url=f"{url}/{name}?signature=secret" if name else "")
                for model_id, name in names.items()
            ]

        yield give
        server.shutdown()


class TestVideos:
    def test_list(self, here, service) -> None:
        service.add_video("v1")
        service.add_video("v2", "error", message="no speech")
        code, out, err = here("videos")
        assert (code, err) == (0, "")
        rows = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
        assert rows["v2"] == ["error", "no speech"]
        assert rows["v1"][0] == "finished"
        assert rows["v1"][1].startswith(service.files_url)
        listed = json.loads(here("videos", "--json")[1])
        assert {video["video_id"]: video["status"] for video in listed} == {"v1": "finished", "v2": "error"}

    def test_a_url_is_not_broken_on_a_terminal(self, service, environment, tmp_path) -> None:
        service.add_video("v1")
        url = json.loads(json.dumps(service.files_url))
        code, got = on_terminal("videos", environment=environment | {"COLUMNS": "40"}, cwd=tmp_path)
        assert code == 0
        assert f"v1        finished  {url}/" in got or f"finished  {url}/" in got

    def test_a_server_without_a_list(self, here, service) -> None:
        service.reply("video.list", Reply(404, b'{"detail": "Not Found"}'), times=None)
        code, _, err = here("videos")
        assert (code, "video.list" in err) == (1, True)

    def test_a_local_engine(self, here, tmp_path) -> None:
        code, _, err = here("videos", "--local")
        assert (code, "add --data-dir DIR" in err) == (2, True)
        code, out, err = here("videos", "--local", "--data-dir", "engine")
        assert (code, out, err) == (0, "", "")


class TestPictures:
    def test_those_of_a_local_engine_are_saved(self, here, tmp_path) -> None:
        code, out, err = here("characters", "--local", "--save", "pictures", "--json")
        assert (code, err) == (0, "")
        for character in json.loads(out):
            assert character["preview_url"] == ""  # it would have ended with the command
            path = tmp_path / "pictures" / f"{character['model_id']}.png"
            assert character["preview_path"] == str(path)
            assert path.read_bytes().startswith(b"\x89PNG")
        assert "http" not in here("characters", "--local")[1]

    def test_those_of_poses(self, here, tmp_path) -> None:
        code, out, _ = here("avatars", "--local", "--save", "pictures")
        assert code == 0
        for line in out.splitlines():
            pose_id, path = line.split("\t")[0], line.split("\t")[-1]
            assert path == f"pictures/{pose_id}.png"
            assert (tmp_path / path).exists()
        poses = [pose for avatar in json.loads(here("avatars", "--local", "--json")[1]) for pose in avatar["poses"]]
        assert {pose["preview_url"] for pose in poses} == {""}

    def test_those_of_a_server(self, here, pictures, tmp_path) -> None:
        pictures(eva="eva.bin", leo="")
        code, out, err = here("characters", "--save", "pictures")
        assert (code, err) == (0, "")
        assert [line.split("\t") for line in out.splitlines()] == [["eva", "", "", "pictures/eva.png"], ["leo"]]
        assert (tmp_path / "pictures" / "eva.png").read_bytes() == PNG

    @pytest.mark.parametrize(("name", "told"), [("none.png", "HTTP Error 404"), ("page.png", "not a PNG")])
    def test_what_is_no_picture(self, here, pictures, tmp_path, name, told) -> None:
        pictures(eva=name)
        code, _, err = here("characters", "--save", "pictures")
        assert (code, told in err, "secret" in err) == (1, True, False)
        assert "the picture of eva cannot be fetched from" in err

    def test_a_folder_that_cannot_be(self, here, pictures, tmp_path) -> None:
        pictures(eva="eva.bin")
        (tmp_path / "file").touch()
        code, _, err = here("characters", "--save", "file")
        assert (code, "--save: file is not a folder" in err) == (2, True)
        (tmp_path / "pictures" / "eva.png").mkdir(parents=True)
        code, _, err = here("characters", "--save", "pictures")
        assert (code, "pictures/eva.png cannot be written" in err) == (1, True)


class TestTerminalsWithPictures:
    @pytest.mark.parametrize(
        ("environment", "shows"),
        [
            ({"TERM": "xterm-kitty"}, True),
            ({"KITTY_WINDOW_ID": "1"}, True),
            ({"TERM_PROGRAM": "ghostty"}, True),
            ({"TERM_PROGRAM": "WezTerm"}, True),
            ({"TERM_PROGRAM": "iTerm.app"}, True),
            ({"TERM_PROGRAM": "iTerm.app", "TMUX": "/tmp/tmux"}, False),
            ({"KITTY_WINDOW_ID": "1", "TERM": "screen-256color"}, False),
            ({"TERM": "xterm-256color"}, False),
            ({}, False),
        ],
    )
    def test_they_are_recognised(self, environment, shows) -> None:
        assert can_show(environment) is shows
        assert bool(Picture("eva", PNG).escape_sequence(environment)) is shows

    def test_the_protocol_of_kitty(self) -> None:
        """Only the first chunk has the settings, and only the last one has m=0."""
        chunks = Picture("eva", PNG).escape_sequence({"KITTY_WINDOW_ID": "1"}).split("\x1b\\")[:-1]
        heads, bodies = zip(*(chunk.removeprefix("\x1b_G").split(";") for chunk in chunks), strict=True)
        assert heads == ("a=T,f=100,c=16,r=8,m=1", "m=0")
        assert standard_b64decode("".join(bodies)) == PNG
        assert max(map(len, bodies)) == 4096
        assert Picture("eva", b"\xff\xd8\xff").escape_sequence({"KITTY_WINDOW_ID": "1"}) == ""

    def test_the_protocol_of_iterm2(self) -> None:
        got = Picture("eva", b"\xff\xd8\xff").escape_sequence({"TERM_PROGRAM": "iTerm.app"})
        assert got == "\x1b]1337;File=inline=1;size=3;width=16;height=8;preserveAspectRatio=1:/9j/\x07"

    def test_a_local_engine_shows_its_characters(self, environment, tmp_path) -> None:
        _, got = on_terminal("characters", "--local", environment=environment, cwd=tmp_path)
        assert "Add --save DIR to see their pictures." in got
        assert "http" not in got
        _, got = on_terminal(
            "characters", "--local", environment=environment | {"TERM_PROGRAM": "iTerm.app"}, cwd=tmp_path
        )
        assert got.count("\x1b]1337;File=inline=1;") >= 6
        assert "--save" not in got
