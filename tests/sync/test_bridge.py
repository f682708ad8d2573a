from __future__ import annotations

import asyncio
import gc
import os
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from a2v import ClientClosedError, InvalidStateError
from a2v._sync import bridge as module
from a2v._sync import loop as loop_module
from a2v._sync.bridge import Bridge, SyncContext, SyncIterator, SyncWrapper, unwrap

pytestmark = pytest.mark.both_backends

LIMIT = 30


def loop_threads():
    return [thread for thread in threading.enumerate() if thread.name == "a2v"]


def wait_until(condition):
    for _ in range(LIMIT * 100):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never happened")


class TestCalls:
    def test_a_call_returns_the_coroutines_result(self, bridge, fake):
        assert bridge.call(fake.add, 1, second=2) == 3

    def test_nothing_is_started_before_the_first_call(self, bridge, fake):
        before = loop_threads()
        Bridge(fake)
        assert loop_threads() == before

    def test_all_calls_share_one_daemon_thread(self, bridge, fake):
        threads = {bridge.call(fake.thread) for _ in range(3)}
        assert len(threads) == 1
        assert threads.pop().daemon

    def test_the_client_is_entered_and_left_in_one_task(self, bridge, fake):
        bridge.call(fake.add, 1, second=2)
        bridge.close()
        (entered, first), (left, second) = fake.log
        assert (entered, left) == ("client entered", "client left")
        assert first == second

    def test_an_error_is_the_same_object(self, bridge, fake):
        error = ValueError("no")
        with pytest.raises(ValueError, match="no") as caught:
            bridge.call(fake.fail, error)
        assert caught.value is error

    def test_a_traceback_has_the_callers_frames_and_the_clients_and_little_between(self, bridge, fake):
        def outer():
            bridge.call(fake.fail, ValueError("no"))

        with pytest.raises(ValueError, match="no") as caught:
            outer()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[1:] == ["outer", "call", "run", "fail"]

    def test_wrong_arguments_are_the_callers_error(self, bridge, fake):
        with pytest.raises(TypeError, match="second"):
            bridge.call(fake.add, 1)

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
    def test_any_exception_reaches_the_caller_and_the_loop_continues(self, bridge, fake, kind):
        error = kind()
        with pytest.raises(kind) as caught:
            bridge.call(fake.fail, error)
        assert caught.value is error
        assert bridge.call(fake.add, 1, second=2) == 3

    def test_an_error_is_freed_with_its_caller(self, bridge):
        class Error(Exception):  # the built-in ones cannot be referred to weakly
            pass

        async def fail():
            raise Error

        def call():
            try:
                bridge.call(fail)
            except Error as error:
                return weakref.ref(error)

        gc.disable()  # nothing may wait for the collector: no cycle through frames
        try:
            reference = call()
            wait_until(lambda: reference() is None)
            assert reference() is None
        finally:
            gc.enable()

    def test_the_client_sees_the_callers_context_variables(self, bridge, fake):
        token = fake.variable.set("the caller's")
        assert bridge.call(fake.who) == "the caller's"
        fake.variable.reset(token)
        assert bridge.call(fake.who) == "nobody's"

    def test_many_threads_share_one_client(self, bridge, fake):
        with ThreadPoolExecutor(20) as pool:
            numbers = list(pool.map(lambda number: bridge.call(fake.add, number, second=1), range(500)))
        assert numbers == list(range(1, 501))
        assert len(loop_threads()) == 1

    @pytest.mark.anyio
    async def test_it_works_inside_a_running_loop(self, bridge, fake):
        assert bridge.call(fake.add, 1, second=2) == 3
        assert list(SyncIterator(fake.count(), bridge)) == [0, 1, 2]

    def test_it_refuses_in_its_own_loop_thread_and_says_what_to_do(self, bridge, fake):
        async def call_back():
            bridge.call(fake.add, 1, second=2)

        with pytest.raises(RuntimeError, match="AsyncA2V"):
            bridge.call(call_back)

    def test_it_works_in_a_thread_that_the_client_started(self, bridge, fake):
        async def call_back():
            return await anyio.to_thread.run_sync(lambda: bridge.call(fake.add, 1, second=2))

        assert bridge.call(call_back) == 3

    def test_a_start_interrupted_halfway_leaves_one_loop(self, bridge, fake, monkeypatch):
        start = loop_module._thread.start_new_thread

        def interrupted(*arguments):
            start(*arguments)
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(loop_module._thread, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bridge.call(fake.add, 1, second=2)
        assert bridge.call(fake.add, 1, second=2) == 3
        assert fake.noted == ["client entered"]

    def test_a_thread_that_cannot_be_started_raises_in_the_caller(self, bridge, fake, monkeypatch):
        def start(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(loop_module.threading.Thread, "start", start)
        with pytest.raises(ClientClosedError) as caught:
            bridge.call(fake.add, 1, second=2)
        assert str(caught.value.__cause__) == "can't start new thread"
        loop = loop_module.LoopThread(fake)
        # Here, because coverage does not see threads this bare; twice, as two calls at once may start it twice.
        loop._launch()
        loop._launch()
        assert loop.stopping
        loop.join(10)

    def test_a_second_thread_ends_at_once(self, bridge, fake):
        bridge.call(fake.add, 1, second=2)
        before = loop_threads()
        bridge.loop_thread()._launch()
        wait_until(lambda: loop_threads() == before)
        assert fake.noted == ["client entered"]


class TestClosing:
    def test_close_ends_the_thread(self, bridge, fake):
        thread = bridge.call(fake.thread)
        bridge.close()
        assert not thread.is_alive()
        assert fake.noted == ["client entered", "client left"]

    def test_closing_an_unused_client_starts_nothing(self, bridge, fake):
        bridge.close()
        assert fake.log == []
        with pytest.raises(ClientClosedError):
            bridge.call(fake.add, 1, second=2)

    def test_it_can_be_closed_again_and_opened_again(self, bridge, fake):
        assert bridge.call(fake.add, 1, second=2) == 3
        bridge.close()
        bridge.close()
        bridge.reopen()
        bridge.reopen()
        assert bridge.call(fake.add, 1, second=2) == 3
        assert fake.noted == ["client entered", "client left", "client entered"]

    def test_calls_that_wait_get_a_client_closed_error(self, bridge, fake):
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(bridge.call, fake.forever)
            assert fake.reached.wait(LIMIT)
            bridge.close()
            with pytest.raises(ClientClosedError):
                waiting.result(LIMIT)
        assert fake.noted == ["client entered", "cleaned up", "client left"]

    def test_the_error_that_ended_a_call_is_freed_with_its_caller(self, bridge, fake):
        def call():
            try:
                bridge.call(fake.forever)
            except ClientClosedError as error:
                return weakref.ref(error)

        gc.disable()  # nothing may wait for the collector: no cycle through frames
        try:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(call)
                assert fake.reached.wait(LIMIT)
                bridge.close()
                reference = waiting.result(LIMIT)
            assert reference() is None
        finally:
            gc.enable()

    def test_a_call_to_a_loop_that_has_just_ended_is_refused(self, bridge, fake):
        loop = bridge.loop_thread()
        bridge.call(fake.add, 1, second=2)
        bridge.close()
        with pytest.raises(ClientClosedError):
            module._Worker().run(loop, module._Call(fake.forever))

    def test_a_call_that_arrives_while_the_loop_ends_is_refused(self, bridge, fake):
        loop = bridge.loop_thread()
        asked = threading.Event()

        async def linger():
            fake.reached.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(asked.wait)

        with ThreadPoolExecutor(2) as pool:
            lingering = pool.submit(bridge.call, linger)
            assert fake.reached.wait(LIMIT)
            loop.stop()
            with pytest.raises(ClientClosedError):
                module._Worker().run(loop, module._Call(fake.forever))
            asked.set()
            assert lingering.result(LIMIT) is None

    def test_close_raises_the_error_of_leaving_the_client(self, bridge, fake):
        class Failing(type(fake)):
            async def __aexit__(self, *exc_info):
                raise OSError("still busy")

        fake = Failing()
        bridge = Bridge(fake)
        bridge.call(fake.add, 1, second=2)
        with pytest.raises(OSError, match="still busy"):
            bridge.close()

    def test_an_error_on_entering_the_client_raises_in_the_caller(self, fake):
        class Failing(type(fake)):
            async def __aenter__(self):
                raise OSError("no more files")

        fake = Failing()
        with pytest.raises(ClientClosedError) as caught:
            Bridge(fake).call(fake.add, 1, second=2)
        assert str(caught.value.__cause__) == "no more files"

    def test_clean_up_without_end_is_cut_short(self, bridge, fake, monkeypatch):
        monkeypatch.setattr(loop_module, "CLEANUP_TIMEOUT", 0.1)

        async def endless():
            try:
                yield 1
            finally:
                await anyio.sleep_forever()

        iterator = SyncIterator(endless(), bridge)
        next(iterator)
        bridge.close()
        with pytest.raises(ClientClosedError):
            next(iterator)

    def test_dropping_it_ends_the_thread(self, fake):
        bridge = Bridge(fake)
        thread = bridge.call(fake.thread)
        del bridge
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert fake.noted == ["client entered", "client left"]

    def test_once_its_thread_ended_nothing_holds_the_client(self, fake):
        fake = type(fake)()
        reference = weakref.ref(fake)
        bridge = Bridge(fake)
        bridge.call(fake.add, 1, second=2)
        bridge.close()
        del bridge, fake
        gc.collect()
        assert reference() is None

    def test_dropping_an_unused_client_does_nothing(self, fake):
        Bridge(fake)
        assert fake.log == []

    def test_fifty_dropped_clients_leave_no_thread_and_no_descriptor(self, fake):
        def descriptors():
            return len(list(Path("/dev/fd").iterdir()))

        threads, files = threading.active_count(), descriptors()
        for _ in range(50):
            Bridge(fake).call(fake.add, 1, second=2)
        wait_until(lambda: threading.active_count() <= threads and descriptors() <= files)
        assert threading.active_count() <= threads

    def test_an_object_made_by_a_client_keeps_it_alive(self, fake):
        wrapper = SyncWrapper(fake, Bridge(fake))
        gc.collect()
        assert wrapper._bridge.call(fake.add, 1, second=2) == 3


class TestCtrlC:
    def test_it_ends_the_call_and_the_client_stays_usable(self, bridge, fake, ctrl_c):
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            bridge.call(fake.forever)
        assert fake.noted[-1] == "cleaned up"
        assert bridge.call(fake.add, 1, second=2) == 3

    def test_it_carries_the_notes_of_the_cancellation(self, bridge, fake, ctrl_c):
        async def submit():
            try:
                await fake.forever()
            except anyio.get_cancelled_exc_class() as error:
                error.add_note("it may have been accepted")
                raise

        ctrl_c()
        with pytest.raises(KeyboardInterrupt) as caught:
            bridge.call(submit)
        assert caught.value.__notes__ == ["it may have been accepted"]

    def test_a_second_one_does_not_wait_for_the_clean_up(self, bridge, fake, ctrl_c):
        released = threading.Event()

        async def slow():
            try:
                fake.reached.set()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    fake.reached.set()
                    await anyio.to_thread.run_sync(released.wait)
                    fake.note("cleaned up")

        ctrl_c(2)
        with pytest.raises(KeyboardInterrupt):
            bridge.call(slow)
        assert "cleaned up" not in fake.noted
        released.set()
        assert bridge.call(fake.add, 1, second=2) == 3

    def test_the_wait_for_the_clean_up_is_limited(self, bridge, fake, ctrl_c, monkeypatch):
        monkeypatch.setattr(module, "CLEANUP_TIMEOUT", 0.05)
        released = threading.Event()

        async def slow():
            fake.reached.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(released.wait)

        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            bridge.call(slow)
        released.set()

    def test_it_ends_an_iterator_in_its_own_task(self, bridge, fake, ctrl_c):
        iterator = SyncIterator(fake.stuck(), bridge)
        assert next(iterator) == "first"
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        assert fake.noted[1:] == ["opened", "closed"]
        assert len({task for _, task in fake.log[1:]}) == 1
        assert list(iterator) == []

    def test_it_ends_the_entering_of_a_context(self, bridge, fake, make_manager, ctrl_c):
        ctrl_c()
        with pytest.raises(KeyboardInterrupt), SyncContext(make_manager(entering=fake.forever), bridge):
            pytest.fail("it was entered")
        assert fake.noted == ["client entered", "cleaned up"]
        assert bridge.call(fake.add, 1, second=2) == 3

    def test_it_ends_a_context_while_a_value_is_waited_for(self, bridge, fake, make_manager, ctrl_c):
        manager = make_manager()
        ctrl_c()
        with pytest.raises(KeyboardInterrupt), SyncContext(manager, bridge) as context:
            context._step(fake.forever)
        assert fake.noted == ["client entered", "manager entered", "cleaned up", "manager left"]
        assert len(manager.left_with) == 1

    def test_it_cuts_short_the_leaving_of_a_context(self, bridge, fake, make_manager, ctrl_c):
        ctrl_c()
        with pytest.raises(KeyboardInterrupt), SyncContext(make_manager(leaving=fake.forever), bridge):
            pass
        assert fake.noted == ["client entered", "manager entered", "manager left", "cleaned up"]

    @pytest.mark.parametrize("when", [0, 1])
    def test_while_the_call_is_handed_over_it_leaves_nothing_behind(self, bridge, fake, monkeypatch, when):
        bridge.call(fake.add, 1, second=2)
        loop = bridge.loop_thread()
        real = loop.call_soon
        interrupts = []

        def call_soon(callback):
            if when:
                real(callback)
            monkeypatch.undo()
            interrupts.append(1)
            raise KeyboardInterrupt

        monkeypatch.setattr(loop, "call_soon", call_soon)
        monkeypatch.setattr(module, "CLEANUP_TIMEOUT", 600.0)  # there is nothing to wait for
        with pytest.raises(KeyboardInterrupt):
            bridge.call(fake.forever)
        assert interrupts
        assert loop.shutdown_callbacks == set()
        assert bridge.call(fake.add, 1, second=2) == 3

    def test_before_the_first_step_of_its_task_it_ends_the_call(self, bridge, fake, monkeypatch):
        loop = bridge.loop_thread()
        busy, free, callbacks = threading.Event(), threading.Event(), []
        loop.call_soon(lambda: (busy.set(), free.wait()))
        assert busy.wait(LIMIT)
        real = loop.call_soon

        def call_soon(callback):
            real(callback)
            callbacks.append(callback)
            if len(callbacks) == 1:
                raise KeyboardInterrupt
            free.set()  # only now is either callback called

        monkeypatch.setattr(loop, "call_soon", call_soon)
        with pytest.raises(KeyboardInterrupt):
            bridge.call(fake.forever)
        assert len(callbacks) == 2
        assert loop.shutdown_callbacks == set()

    def test_after_the_answer_it_still_ends_an_iterator(self, bridge, fake, monkeypatch):
        wait = module._Call.wait

        def interrupted(self, *seconds):
            wait(self, *seconds)
            monkeypatch.undo()
            raise KeyboardInterrupt

        iterator = SyncIterator(fake.count(), bridge)
        monkeypatch.setattr(module._Call, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        assert fake.noted[-1] == "closed"


class TestIterators:
    def test_it_gives_the_values_and_ends(self, bridge, fake):
        iterator = SyncIterator(fake.count(), bridge)
        assert iter(iterator) is iterator
        assert list(iterator) == [0, 1, 2]
        with pytest.raises(StopIteration):
            next(iterator)
        wait_until(
            lambda: not bridge.loop_thread().shutdown_callbacks
        )  # no task is left, though the iterator is still held

    def test_the_client_runs_only_within_next(self, bridge, fake):
        iterator = SyncIterator(fake.count(), bridge)
        assert fake.log == []
        next(iterator)
        bridge.call(fake.add, 1, second=2)
        assert fake.noted == ["client entered", "opened", 0]
        next(iterator)
        assert fake.noted == ["client entered", "opened", 0, 1]

    def test_one_task_owns_it_for_life(self, bridge, fake):
        list(SyncIterator(fake.count(), bridge))
        assert len({task for _, task in fake.log[1:]}) == 1
        assert fake.log[0][1] != fake.log[1][1]

    @pytest.mark.parametrize("way", ["close", "with", "drop"])
    def test_leaving_it_early_closes_it_in_its_own_task(self, bridge, fake, way):
        iterator = SyncIterator(fake.count(tidy=0.01), bridge)
        if way == "with":
            with iterator as values:
                next(values)
        else:
            next(iterator)
        if way == "close":
            iterator.close()
        if way == "drop":
            del iterator
            wait_until(lambda: fake.noted[-1] == "closed")
        assert fake.noted[1:] == ["opened", 0, "closed"]
        assert len({task for _, task in fake.log[1:]}) == 1

    def test_break_and_garbage_collection(self, bridge, fake):
        for _ in SyncIterator(fake.count(), bridge):
            break
        wait_until(lambda: not bridge.loop_thread().shutdown_callbacks)
        assert fake.noted[-1] == "closed"
        assert bridge.loop_thread().shutdown_callbacks == set()

    def test_once_closed_it_has_no_more_values(self, bridge, fake):
        iterator = SyncIterator(fake.count(), bridge)
        next(iterator)
        iterator.close()
        iterator.close()
        assert list(iterator) == []

    def test_closed_before_the_first_value_nothing_was_started(self, bridge, fake):
        iterator = SyncIterator(fake.count(), bridge)
        iterator.close()
        assert list(iterator) == []
        assert fake.log == []

    def test_an_error_passes_and_ends_it(self, bridge):
        async def failing():
            yield 1
            raise ValueError("no")

        iterator = SyncIterator(failing(), bridge)
        assert next(iterator) == 1
        with pytest.raises(ValueError, match="no") as caught:
            next(iterator)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[1:] == ["__next__", "run", "failing"]
        assert list(iterator) == []

    def test_an_error_of_its_clean_up_is_raised_by_close(self, bridge):
        async def failing():
            try:
                yield 1
            finally:
                raise ValueError("no")

        iterator = SyncIterator(failing(), bridge)
        next(iterator)
        with pytest.raises(ValueError, match="no"):
            iterator.close()

    def test_one_thread_at_a_time(self, bridge, fake):
        iterator = SyncIterator(fake.stuck(), bridge)
        assert next(iterator) == "first"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(next, iterator, "ended")
            assert fake.reached.wait(LIMIT)
            with pytest.raises(InvalidStateError, match="another thread"):
                next(iterator)
            iterator.close()
            assert waiting.result(LIMIT) == "ended"
        assert fake.noted[1:] == ["opened", "closed"]

    def test_while_it_closes_it_has_no_more_values(self, bridge):
        released, closing = threading.Event(), threading.Event()

        async def slow():
            try:
                yield 1
            finally:
                closing.set()
                await anyio.to_thread.run_sync(released.wait)

        iterator = SyncIterator(slow(), bridge)
        next(iterator)
        worker = iterator._worker
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(iterator.close)
            assert closing.wait(LIMIT)
            second = pool.submit(iterator.close)
            with pytest.raises(StopAsyncIteration):
                worker.run(bridge.loop_thread(), module._Call(anyio.sleep_forever))
            released.set()
            assert first.result(LIMIT) is second.result(LIMIT) is None

    def test_after_the_client_closed(self, bridge, fake):
        under_way, at_its_end = SyncIterator(fake.count(), bridge), SyncIterator(fake.count(), bridge)
        next(under_way)
        list(at_its_end)
        bridge.close()
        assert fake.noted[-2:] == ["closed", "client left"]
        with pytest.raises(ClientClosedError):
            next(under_way)
        with pytest.raises(StopIteration):
            next(at_its_end)
        under_way.close()

    def test_one_opened_before_the_client_was_closed_and_opened_again_stays_ended(self, bridge, fake):
        iterator = SyncIterator(fake.count(), bridge)
        next(iterator)
        bridge.close()
        bridge.reopen()
        bridge.call(fake.add, 1, second=2)
        with pytest.raises(ClientClosedError):
            next(iterator)


class TestContexts:
    def test_it_is_entered_stepped_and_left_in_one_task(self, bridge, fake, make_manager):
        manager = make_manager()
        with SyncContext(manager, bridge) as context:
            assert isinstance(context, SyncContext)
            assert context._step(manager.step) == "step"
        assert fake.noted[1:] == ["manager entered", "step", "manager left"]
        assert len({task for _, task in fake.log[1:]}) == 1
        assert manager.left_with == [None]

    def test_the_last_value_ends_the_iteration(self, bridge, make_manager):
        manager = make_manager()
        with SyncContext(manager, bridge) as context, pytest.raises(StopIteration):
            context._step(manager.last)

    def test_after_it_there_are_no_more_values(self, bridge, make_manager):
        manager = make_manager()
        with SyncContext(manager, bridge) as context:
            pass
        with pytest.raises(StopIteration):
            context._step(manager.step)

    def test_before_it_there_are_no_values(self, bridge, make_manager):
        manager = make_manager()
        context = SyncContext(manager, bridge)
        with pytest.raises(RuntimeError, match="`with` statement"):
            context._step(manager.step)
        context.__exit__(None, None, None)

    def test_the_bodys_error_is_passed_to_the_wrapped_context_and_raised(self, bridge, make_manager):
        manager, error = make_manager(), KeyError("mine")
        with pytest.raises(KeyError) as caught, SyncContext(manager, bridge):
            raise error
        assert caught.value is error
        assert manager.left_with == [KeyError]

    def test_an_error_while_entering(self, bridge, fake, make_manager):
        async def fail():
            raise ValueError("no")

        with pytest.raises(ValueError, match="no") as caught, SyncContext(make_manager(entering=fail), bridge):
            pytest.fail("it was entered")
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[1:] == ["__enter__", "run", "enter", "__aenter__", "fail"]
        assert fake.noted == ["client entered"]
        # The caller gets the error before its task has ended.
        wait_until(lambda: not bridge.loop_thread().shutdown_callbacks)
        assert bridge.loop_thread().shutdown_callbacks == set()

    def test_an_error_while_leaving(self, bridge, make_manager):
        async def fail():
            raise ValueError("no")

        with pytest.raises(ValueError, match="no") as caught, SyncContext(make_manager(leaving=fail), bridge):
            pass
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[1:] == ["__exit__", "close", "run", "__aexit__", "fail"]

    def test_an_error_of_a_clean_up_requested_by_another_thread(self, bridge, fake, make_manager):
        async def fail():
            raise ValueError("no")

        context = SyncContext(make_manager(leaving=fail), bridge)
        context.__enter__()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(context._step, fake.forever)
            assert fake.reached.wait(LIMIT)
            with pytest.raises(ValueError, match="no"):
                context.__exit__(None, None, None)
            with pytest.raises(ValueError, match="no"):
                waiting.result(LIMIT)

    @pytest.mark.parametrize("way", ["drop", "close"])
    def test_an_open_context_is_left_when_its_client_closes(self, bridge, fake, make_manager, way):
        manager = make_manager()
        context = SyncContext(manager, bridge)
        context.__enter__()
        if way == "drop":
            del context
            wait_until(lambda: fake.noted[-1] == "manager left")
        else:
            bridge.close()
            context.__exit__(None, None, None)
        assert "manager left" in fake.noted
        assert manager.left_with == [GeneratorExit]
        assert len({task for what, task in fake.log if "manager" in what}) == 1


class TestAnotherProcess:
    """As a forked child sees it; real forks are in test_interpreter.py."""

    @pytest.fixture
    def fork(self, monkeypatch):
        return lambda: monkeypatch.setattr(os, "getpid", lambda: 0)

    def test_objects_opened_before_the_fork_are_refused_and_untouched(
        self, bridge, fake, make_manager, fork, monkeypatch
    ):
        iterator, manager = SyncIterator(fake.count(), bridge), make_manager()
        next(iterator)
        with SyncContext(manager, bridge):
            before = list(fake.noted)
            fork()
            with pytest.raises(RuntimeError, match="before a fork"):
                next(iterator)
            iterator.close()
            iterator._worker.cancel()
            SyncContext.__exit__(SyncContext(manager, bridge), None, None, None)
            monkeypatch.undo()
            bridge.call(fake.add, 1, second=2)
            assert fake.noted == before

    def test_its_exit_is_not_the_parents(self, bridge, fake, fork, monkeypatch):
        bridge.call(fake.add, 1, second=2)
        loop = bridge.loop_thread()
        fork()
        loop._exit()
        monkeypatch.undo()
        assert bridge.call(fake.add, 1, second=2) == 3

    def test_the_exit_of_its_own_process_ends_the_thread(self, bridge, fake):
        thread = bridge.call(fake.thread)
        bridge.loop_thread()._exit()
        assert not thread.is_alive()
        assert fake.noted[-1] == "client left"


class TestWrappers:
    def test_the_repr_is_the_wrapped_objects_with_its_own_class(self, bridge):
        class AsyncThing:
            def __repr__(self):
                return f"<{type(self).__name__} 7>"

        class Thing(SyncWrapper[AsyncThing]):
            pass

        assert repr(Thing(AsyncThing(), bridge)) == "<Thing 7>"

    def test_wrapped_objects_are_unwrapped(self, bridge, fake):
        assert unwrap(SyncWrapper(fake, bridge)) is fake
        assert unwrap("id") == "id"
