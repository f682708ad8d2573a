"""Clients that are closed in the middle of an exchange with a Redis server that never responds. Neither does the service."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest

import a2v

Client = TypeVar("Client", a2v.A2V, a2v.AsyncA2V)

pytest.importorskip("redis")


class SilentServer:
    """Accepts connections, and never responds."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []

    def client(self, kind: Callable[..., Client]) -> Client:
        host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        return kind("token-0123456789", base_url=f"http://{host}", budget=f"redis://{host}/0", max_retries=0)

    def wait_for_exchange(self) -> None:
        """Wait for the first request of an exchange: what comes first to this server."""
        connection, _ = self._listener.accept()
        self._connections.append(connection)
        assert connection.recv(1) == b"*"

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._listener.close()


@pytest.fixture
def server() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()


@pytest.mark.anyio
async def test_closing_a_client_ends_its_call(server) -> None:
    client, errors = server.client(a2v.AsyncA2V), []

    async def call() -> None:
        with pytest.raises(a2v.A2VError) as caught:
            await client.characters.list()
        errors.append(caught.type)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.to_thread.run_sync(server.wait_for_exchange)
        await client.aclose()
    assert errors == [a2v.ClientClosedError]


@pytest.mark.extended
@pytest.mark.anyio
async def test_a_cancelled_call_ends_and_its_client_can_be_closed(server) -> None:
    async with server.client(a2v.AsyncA2V) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.characters.list)
            await anyio.to_thread.run_sync(server.wait_for_exchange)
            group.cancel_scope.cancel()
        assert group.cancel_scope.cancelled_caught
    with pytest.raises(a2v.ClientClosedError):
        await client.characters.list()


@pytest.mark.extended
def test_a_program_that_returns_ends(server) -> None:
    """Without closing the client; no thread keeps the program alive."""
    others = set(threading.enumerate())

    async def main() -> asyncio.Task[object]:
        call = asyncio.ensure_future(server.client(a2v.AsyncA2V).characters.list())
        await anyio.to_thread.run_sync(server.wait_for_exchange)
        return call

    assert asyncio.run(main()).cancelled()
    assert all(thread.daemon for thread in set(threading.enumerate()) - others)


@pytest.mark.extended
def test_an_event_loop_that_is_closed_leaves_no_error(server, monkeypatch, caplog) -> None:
    """The exchange ends later, in its thread."""
    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    client, loop = server.client(a2v.AsyncA2V), asyncio.new_event_loop()
    call = loop.create_task(client.characters.list())
    loop.run_until_complete(loop.run_in_executor(None, server.wait_for_exchange))
    call._log_destroy_pending = False
    loop.close()
    del call
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "a2v worker":
            thread.join(60)
            assert not thread.is_alive()
    assert failed == []
    assert [record.message for record in caplog.records] == []
    # Its client can still be used in another event loop.
    server.close()
    with pytest.raises(a2v.TransportError):
        asyncio.run(client.characters.list())
    asyncio.run(client.aclose())


@pytest.mark.extended
def test_closing_a_sync_client_ends_the_call_of_another_thread(server) -> None:
    client, errors = server.client(a2v.A2V), []

    def call() -> None:
        try:
            client.characters.list()
        except a2v.A2VError as error:
            errors.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    server.wait_for_exchange()
    client.close()
    thread.join()
    assert errors == [a2v.ClientClosedError]
