"""Shared budgets in files: several processes, crashes in the middle of a write, and files that must not be used."""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

import a2v
from a2v._budget import file_store
from a2v._budget.file_store import FileStore
from a2v._budget.store import Append, Position, StoreUnavailableError
from a2v._core.sealing import Sealer
from a2v._core.settings import Secret
from a2v.testing import FixedWindow, Service

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks of this kind")


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "budget")


def fd_count() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# -- processes --------------------------------------------------------------------------------------------------------


def test_processes_share_a_limit_and_polls(start_member, tmp_path) -> None:
    service = Service(limit=FixedWindow(300, 60), poll_statuses=["in_progressing", "in_progressing", "finished"])
    with service.server() as server:
        one, other = (start_member(server.base_url, str(tmp_path / "a2v.budget"), "asyncio") for _ in range(2))
        for member in (one, other):
            member.begin("calls", 5)
        assert [len(member.end()) for member in (one, other)] == [5, 5]
        assert one.do("left") == other.do("left") == 290
        service.add_video("v", "in_progressing", "in_progressing", "finished")
        for member in (one, other):
            member.begin("wait", "v")
        assert [member.end() for member in (one, other)] == ["finished"] * 2
        assert len(service.polls) == 3
        assert one.do("left") == 287
    [path] = tmp_path.iterdir()
    assert path.name.startswith("a2v.budget-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert not any(text in content for text in (b"token", b"https", b"finished", b'"v"'))


def test_a_killed_process_blocks_nobody(start_member, tmp_path) -> None:
    """It is killed while its requests, the first of all, are in flight."""
    service = Service(limit=FixedWindow(300, 60))
    service.add_video("v", "finished")
    service.hang("video.get")
    with service.server() as server:
        one, other = (start_member(server.base_url, str(tmp_path / "a2v.budget"), "asyncio") for _ in range(2))
        one.do("calls", 1)
        other.do("calls", 1)
        one.begin("wait", "v")
        while not service.polls:
            threading.Event().wait(0.01)
        one.kill()
        assert max(other.do("calls", 3)) < 10
        assert other.do("left") in (293, 294)


def test_a_blocked_event_loop_stalls_nobody(start_member, tmp_path) -> None:
    service = Service(limit=FixedWindow(300, 60), poll_statuses=["in_progressing"] * 2 + ["finished"])
    with service.server() as server:
        one, other = (start_member(server.base_url, str(tmp_path / "a2v.budget"), "asyncio") for _ in range(2))
        for member in (one, other):
            member.do("calls", 1)
        one.begin("block", 3)
        other.begin("make", 1)
        assert len(other.end()) == 1
        one.end()
        assert one.do("left") == other.do("left")


def test_forked_children_and_threads_are_members_of_their_own(tmp_path) -> None:
    # The server reports no limit, so only what the members have written counts.
    with Service().server() as server:

        def new() -> a2v.A2V:
            return a2v.A2V("token-0123456789", base_url=server.base_url, budget=tmp_path / "b", rate_limit=300)

        with closing(new()) as client:
            client.characters.list()
            child = os.fork()
            if not child:
                client.characters.list()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            threads = [threading.Thread(target=client.characters.list) for _ in range(3)]
            with closing(new()) as other:
                threads += [threading.Thread(target=other.characters.list) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            assert client.pace().left == 292


def test_a_child_that_is_forked_during_an_exchange_does_not_keep_the_file_locked(store, monkeypatch) -> None:
    store.exchange(Position(), [])
    is_locked = threading.Event()

    def read_header(file: int) -> tuple[str, int]:
        is_locked.set()
        threading.Event().wait(0.2)
        return FileStore._read_header(store, file)

    monkeypatch.setattr(store, "_read_header", read_header)
    thread = threading.Thread(target=store.exchange, args=[Position(), []])
    thread.start()
    is_locked.wait()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)  # it lives as long as its parent
        os._exit(0)
    thread.join()
    try:
        FileStore(store.path).exchange(Position(), [])
    finally:
        os.close(writer)
        os.close(reader)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_stays_open(tmp_path) -> None:
    store = FileStore(tmp_path / "budget")
    store.exchange(Position(), [])
    before = fd_count()
    position = Position()
    for number in range(50):
        position = store.exchange(position, [b"entry %d" % number]).position
    assert fd_count() == before


# -- the log ----------------------------------------------------------------------------------------------------------


def test_entries_are_read_in_order_by_all(store, tmp_path) -> None:
    other = FileStore(store.path)
    start = store.exchange(Position(), [])
    assert start.entries == []
    assert store.exchange(start.position, [b"a", b"b"]).entries == [b"a", b"b"]
    assert other.has_changed(Position())
    seen = other.exchange(Position(), [])
    assert seen.entries == [b"a", b"b"]
    assert not other.has_changed(seen.position)
    assert other.exchange(seen.position, [b"c"]).entries == [b"c"]
    assert store.has_changed(start.position)
    assert store.exchange(start.position, []).entries == [b"a", b"b", b"c"]


def test_an_entry_at_the_end_is_refused_if_there_are_others(store) -> None:
    start = store.exchange(Position(), []).position
    store.exchange(start, [b"a"])
    late = store.exchange(start, [b"b"], Append.AT_END)
    assert late.entries == [b"a"]
    assert store.exchange(late.position, [b"b"], Append.AT_END).entries == [b"b"]


def test_a_log_is_started_again_once(store) -> None:
    start = store.exchange(store.exchange(Position(), []).position, [b"a" * 100]).position
    again = store.exchange(start, [b"kept"], Append.RESTART)
    assert again.entries == [b"kept"]
    assert again.position.generation != start.generation
    late = store.exchange(start, [b"lost"], Append.RESTART)
    assert (late.position, late.entries) == (again.position, [b"kept"])
    assert store.exchange(start, [b"lost"]).entries == [b"kept"]


def test_what_a_killed_process_has_written_in_part_is_overwritten(store) -> None:
    end = store.exchange(store.exchange(Position(), []).position, [b"whole"]).position
    size = store.path.stat().st_size
    for part in (b"\0", b"\0\0\0\x10half", b"\0\0\0\0\0\0", b"\xff" * 40):
        with store.path.open("ab") as file:
            file.write(part)
        assert store.exchange(Position(), []).entries == [b"whole"]
        store.exchange(end, [b"next"])
        assert store.exchange(Position(), []).entries == [b"whole", b"next"]
        os.truncate(store.path, size)


@pytest.mark.parametrize("content", [b"", b"a2v", b"a2v budget 1 abc", b"a2v budget 1 abc another-boot\n\0\0\0\x01x"])
def test_a_log_without_a_complete_header_or_from_before_a_reboot_is_started_again(store, content) -> None:
    store.path.write_bytes(content)
    store.path.chmod(0o600)
    position = store.exchange(Position(), []).position
    assert store.exchange(position, [b"a"]).entries == [b"a"]


def test_a_deleted_file_is_made_again(store) -> None:
    position = store.exchange(Position(), []).position
    store.path.unlink()
    assert store.has_changed(position)
    assert store.exchange(position, [b"a"]).position.generation != position.generation


def test_a_truncated_file_is_started_again(store) -> None:
    """Otherwise its clients would write at different places."""
    position = store.exchange(store.exchange(Position(), []).position, [b"a", b"b" * 100]).position
    os.truncate(store.path, store.path.stat().st_size - 50)
    assert store.has_changed(position)
    again = store.exchange(position, [b"c"])
    assert (again.position.generation != position.generation, again.entries) == (True, [])
    assert store.exchange(again.position, [b"c"]).entries == FileStore(store.path).exchange(Position(), []).entries


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"name,audio\n", "not a budget of a2v"), (b"a2v budget 2 abc def\n", "by another version of a2v")],
)
def test_other_files_are_left_alone(store, content, words) -> None:
    store.path.write_bytes(content)
    store.path.chmod(0o600)
    with pytest.raises(StoreUnavailableError, match=words):
        store.exchange(Position(), [b"a"])
    assert store.path.read_bytes() == content


def test_a_stopped_process_does_not_stop_the_others(store, monkeypatch) -> None:
    import fcntl

    monkeypatch.setattr(file_store, "_MAX_WAIT", 0.01)
    store.exchange(Position(), [])
    with store.path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailableError, match="does not release it"):
            store.exchange(Position(), [])
    store.exchange(Position(), [])


# -- files that must not be used --------------------------------------------------------------------------------------


def account_path(path: Path) -> Path:
    sealer = Sealer(Secret("token-0123456789"), "https://a2v.example")
    return path.with_name(f"{path.name}-{sealer.fingerprint[:16]}")


def refused(budget: object) -> str:
    with pytest.raises(a2v.ConfigurationError) as caught:
        a2v.AsyncA2V("token-0123456789", base_url="https://a2v.example", budget=budget)
    return str(caught.value)


def test_planted_files_are_refused(tmp_path) -> None:
    path = tmp_path / "a2v.budget"
    planted = account_path(path)
    planted.symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refused(path)
    planted.unlink()
    planted.mkdir()
    assert "cannot be opened: Is a directory" in refused(path)
    planted.rmdir()
    os.mkfifo(planted, 0o600)
    assert "not a regular file" in refused(path)
    planted.unlink()
    planted.touch()
    planted.chmod(0o666)
    assert "other users can write it" in refused(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_files_of_other_users_are_refused(tmp_path) -> None:
    planted = account_path(tmp_path / "b")
    planted.touch(0o600)
    os.chown(planted, 12345, 12345)
    assert "belongs to another user" in refused(tmp_path / "b")


def test_bad_values_are_explained(tmp_path, monkeypatch) -> None:
    assert "there is no folder" in refused(tmp_path / "missing" / "b")
    assert "is a folder; name a file in it" in refused(tmp_path)
    for value in ("", " ", 5, b"x"):
        assert "budget must be a path, redis://HOST:PORT/DB or rediss://HOST:PORT/DB" in refused(value)
    assert "scheme 'memcached'" in refused("memcached://:secret@host")
    for value in (
        "redis://",
        "redis://host:99999/0",
        "redis://host:0",
        "redis://host/name",
        "redis://a b/0",
        "redis:host",
    ):
        assert "must look like redis://HOST:PORT/DB" in refused(value)
    for value in ("redis://:s3cret@host:x/0", "rediss://:s3cret@host/0?invented=1&socket_timeout=x"):
        assert "s3cret" not in refused(value)
    monkeypatch.setenv("A2V_BUDGET", "ftp://host")
    assert refused(None).startswith("A2V_BUDGET must be")
    monkeypatch.setenv("A2V_BUDGET", "")
    a2v.AsyncA2V("token-0123456789")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_refused(tmp_path) -> None:
    tmp_path.chmod(0o500)
    assert "is not writable" in refused(tmp_path / "b")
