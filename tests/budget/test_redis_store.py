"""Shared budgets in a real Redis or Valkey: several processes, and a server that is restarted and stopped."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest
import redis

import a2v
from a2v._budget.redis_store import RedisStore, without_password
from a2v._budget.store import Append, Position, StoreUnavailableError
from a2v._core.settings import Secret
from a2v._diagnostics import check_budget
from a2v.testing import FixedWindow, Service
from tests.budget.conftest import free_port
from tests.certificates import Certificate

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.extended, pytest.mark.skipif(sys.platform == "win32", reason="no Redis")]


@pytest.fixture
def store(redis_server) -> RedisStore:
    return RedisStore(Secret(redis_server.url), "log")


def test_entries_are_read_in_order_by_all(store, redis_server) -> None:
    other = RedisStore(Secret(redis_server.url), "log")
    start = store.exchange(Position(), [])
    assert start.entries == []
    assert store.exchange(start.position, [b"\0a", b"b"]).entries == [b"\0a", b"b"]
    assert other.has_changed(start.position)
    seen = other.exchange(Position(), [])
    assert seen.entries == [b"\0a", b"b"]
    assert other.exchange(seen.position, []).entries == []
    assert store.exchange(start.position, [b"c"], Append.AT_END).entries == [b"\0a", b"b"]
    assert store.exchange(seen.position, [b"c"], Append.AT_END).entries == [b"c"]
    assert abs(store.now() - other.now()) < 1
    many = [b"%d" % number for number in range(10_000)]
    assert store.exchange(seen.position, many).entries == [b"c", *many]


def test_a_log_is_started_again_once(store) -> None:
    start = store.exchange(store.exchange(Position(), []).position, [b"a"]).position
    again = store.exchange(start, [b"kept"], Append.RESTART)
    assert (again.entries, again.position.generation != start.generation) == ([b"kept"], True)
    late = store.exchange(start, [b"lost"], Append.RESTART)
    assert (late.position, late.entries) == (again.position, [b"kept"])


def test_a_closed_connection_is_replaced(store, redis_server) -> None:
    start = store.exchange(Position(), []).position
    redis_server.stop()
    with pytest.raises(StoreUnavailableError, match="cannot be made, or was closed"):
        store.exchange(start, [])
    redis_server.start()
    assert store.exchange(start, []).position.generation != start.generation


def test_other_versions_and_passwords_are_explained(store, redis_server) -> None:
    store._client.rpush("log", "a2v budget 2 abc")
    assert "another version of a2v" in problem(redis_server.url)
    store._client.set("log", "5")
    assert "another program uses the same key" in problem(redis_server.url)
    secret = redis_server.url.replace("redis://", "redis://someone:s3cret@")
    assert "s3cret" not in without_password(secret)
    assert "user name or the password" in problem(secret)


def problem(url: str) -> str:
    """Return why a store cannot be used, and check that this reveals no password."""
    with pytest.raises(StoreUnavailableError) as caught:
        RedisStore(Secret(url), "log").exchange(Position(), [])
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def append(url: str) -> None:
    """Append an entry, and read it."""
    store = RedisStore(Secret(url), "log")
    assert store.exchange(store.exchange(Position(), []).position, [b"a"]).entries == [b"a"]


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_users_and_passwords(start_redis, name) -> None:
    server = start_redis("--requirepass", "s3cret", name=name)
    host = server.url.removeprefix("redis://")
    append(f"redis://:s3cret@{host}")
    client = redis.Redis.from_url(f"redis://:s3cret@{host}")
    client.acl_setuser("reader", enabled=True, passwords=["+s3cret"], keys=["*"], commands=["+@read"])
    client.acl_setuser("other", enabled=True, passwords=["+s3cret"], keys=["other:*"], commands=["+@all"])
    client.acl_setuser("a@b", enabled=True, passwords=["+s3cret/@:"], keys=["log"], commands=["+@all"])
    append(f"redis://a%40b:s3cret%2F%40%3A@{host}")
    assert "user name or the password" in problem(server.url)
    for user in ("reader", "other"):
        assert "may not run scripts, or not use keys" in problem(f"redis://{user}:s3cret@{host}")


def test_certificates_are_verified(start_redis, tmp_path) -> None:
    """Debian's server has TLS; the wheel of Valkey does not."""
    certificate, port = Certificate(tmp_path, "authority"), str(free_port())
    tls = ("--tls-port", port, "--tls-cert-file", certificate.cert, "--tls-key-file", certificate.key)
    server = start_redis(*tls, "--tls-auth-clients", "no")
    url = f"rediss://:s3cret@127.0.0.1:{port}/0"
    assert "ssl_ca_certs" in problem(url)
    redis.Redis.from_url(server.url).config_set("requirepass", "s3cret")
    append(f"{url}?ssl_ca_certs={certificate.cert}")
    # A name that the certificate does not have leads to the same server.
    other_name = url.replace("127.0.0.1", "127.0.0.2")
    assert "certificate" in problem(f"{other_name}?ssl_ca_certs={certificate.cert}")


def test_servers_of_other_kinds_are_explained(start_redis) -> None:
    cluster = start_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    assert "Redis Cluster, which is not supported" in problem(cluster.url)
    replica = start_redis("--replicaof", "127.0.0.1", str(cluster.port))
    assert "it is a replica" in problem(replica.url)
    full = start_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    assert "its memory is full" in problem(full.url)


def test_a_sentinel_is_explained(start_redis, tmp_path) -> None:
    path = tmp_path / "sentinel.conf"
    path.touch()
    assert "perhaps a Sentinel" in problem(start_redis(path, "--sentinel").url)


def test_processes_share_a_limit_and_polls(start_member, redis_server) -> None:
    service = Service(limit=FixedWindow(300, 60))
    with service.server() as server:
        members = [start_member(server.base_url, redis_server.url, backend) for backend in ("asyncio", "trio")]
        for member in members:
            member.begin("calls", 5)
        assert [len(member.end()) for member in members] == [5, 5]
        assert [member.do("left") for member in members] == [290, 290]
        service.add_video("v", "in_progressing", "in_progressing", "finished")
        for member in members:
            member.begin("wait", "v")
        assert [member.end() for member in members] == ["finished"] * 2
        assert len(service.polls) == 3


@pytest.mark.anyio
async def test_a_server_that_hangs_delays_a_call_by_a_moment_only(redis_server, caplog) -> None:
    """Its process is stopped, so it accepts connections and never answers."""
    caplog.set_level(logging.INFO, "a2v")
    service = Service(limit=FixedWindow(300, 60))
    async with a2v.AsyncA2V(
        "token-0123456789", base_url="https://a2v.example", transport=service.transport(), budget=redis_server.url
    ) as client:
        await client.characters.list()
        redis_server._process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            for _ in range(5):
                await client.characters.list()
            assert time.monotonic() - began < 5  # without the store, at most half a second
        finally:
            redis_server._process.send_signal(signal.SIGCONT)
        with anyio.fail_after(30):
            while "is available again" not in caplog.text:  # the log has no event
                await client.pace()
                await anyio.sleep(0.1)
        assert (await client.pace()).left == 294
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "no response within 0.5 s" in warnings[0].getMessage()


def test_twenty_restarts_lose_nothing(start_member, redis_server) -> None:
    """Four processes make videos while the server is restarted again and again, each time without its data."""
    service = Service(limit=FixedWindow(600, 60), render_seconds=1)
    with service.server() as server:
        members = [start_member(server.base_url, redis_server.url, "asyncio") for _ in range(4)]
        restarts = made = 0
        longest = 0.0
        while restarts < 20:
            for member in members:
                member.begin("make", 3)
            for _ in range(2):
                time.sleep(0.5)
                redis_server.stop()
                time.sleep(0.3)
                redis_server.start()
                restarts += 1
            for member in members:
                began = time.monotonic()
                made += len(member.end())
                longest = max(longest, time.monotonic() - began)
        for member in members:
            assert max(member.do("calls", 2)) < 60
    assert len(service.submissions) == made == 120
    assert not [call for call in service.calls if call.status == 429]
    assert longest < 60


def test_evicted_and_flushed_logs_lose_nothing(start_member, start_redis) -> None:
    """Other programs fill the server's memory until the log is evicted, or empty all databases."""
    redis_server = start_redis("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random")
    service = Service(limit=FixedWindow(600, 60), render_seconds=1)
    with service.server() as server, closing(redis.Redis.from_url(redis_server.url, socket_timeout=30)) as client:
        members = [start_member(server.base_url, redis_server.url, "asyncio") for _ in range(4)]
        made = losses = 0
        while losses < 12:
            for member in members:
                member.begin("make", 3)
            for number in range(4):
                time.sleep(0.3)
                if number % 2:
                    client.flushall()
                else:
                    for filler in range(400):
                        client.set(f"filler {filler}", b"x" * 20_000)
                losses += 1
            made += sum(len(member.end()) for member in members)
        assert client.info("stats")["evicted_keys"] > 0
        assert [len(member.do("calls", 2)) for member in members] == [2] * 4
    assert len(service.submissions) == made == 36
    assert not [call for call in service.calls if call.status == 429]


@pytest.mark.parametrize(("count", "kind"), [(8, "file"), (8, "redis"), (16, "redis"), (16, "valkey")])
def test_each_of_many_processes_gets_its_share(start_member, start_redis, tmp_path, count, kind) -> None:
    """All make calls at once, more than fit into one window: a real minute."""
    budget = str(tmp_path / "a2v.budget") if kind == "file" else start_redis(name=kind).url
    service = Service(limit=FixedWindow(10 * count, 60))
    with service.server() as server:
        members = [start_member(server.base_url, budget, "asyncio") for _ in range(count)]
        for member in members:
            member.do("calls", 1)
        for member in members:
            member.begin("calls", 12)
        seconds = [member.end() for member in members]
    in_first_window = [sum(each < 45 for each in calls) for calls in seconds]
    assert [len(calls) for calls in seconds] == [12] * count
    assert max(max(calls) for calls in seconds) < 75
    assert not [call for call in service.calls if call.status == 429]
    assert min(in_first_window) >= 6  # an equal share is 9, but processes begin one after another


@pytest.mark.anyio
async def test_doctor_says_what_a_user_of_redis_may_not_do(redis_server, monkeypatch) -> None:
    monkeypatch.delenv("A2V_BUDGET", raising=False)

    async def check(url: str) -> tuple[str, str]:
        ((state, words),) = [(one.state, one.words) for one in await check_budget(Secret(url), "account")]
        assert "s3cret-word" not in words
        return state, words

    async def check_as(database: int, *commands: str) -> tuple[str, str]:
        with closing(redis.Redis.from_url(redis_server.url)) as admin:
            admin.script_flush()
            admin.acl_setuser(
                "weak", enabled=True, passwords=["+s3cret-word"], reset_keys=True, keys=["a2v:budget:*"],
                commands=["-@all", *commands],
            )  # fmt: skip
        return await check(f"redis://weak:s3cret-word@127.0.0.1:{redis_server.port}/{database}")

    state, words = await check(redis_server.url)
    assert state == "ok"
    assert "can be read and written" in words
    assert "(Redis " in words or "(Valkey " in words

    state, words = await check_as(0, "+@read", "+ping")
    assert state == "problem"
    assert "its user may not run scripts" in words
    needed = re.findall("[A-Z]+(?: [A-Z]+)*", words.partition("it needs ")[2])
    assert all(f"`{name}`" in (ROOT / "docs/services.md").read_text() for name in needed)
    # Each is needed, and no other one: SELECT for another database, and DEL for a long log.
    allowed = {name: "+" + name.lower().replace(" ", "|") for name in needed}
    assert (await check_as(1, *allowed.values()))[0] == "ok"
    assert allowed.pop("SELECT")
    assert (await check_as(0, *allowed.values()))[0] == "ok"
    for name in set(allowed) - {"DEL"}:
        state, words = await check_as(0, *(command for other, command in allowed.items() if other != name))
        assert state == "problem"
        assert "its user may not run" in words
        assert "it needs EVALSHA" in words
