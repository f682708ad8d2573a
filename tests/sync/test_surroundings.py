"""Environments in which sync clients often break: notebooks, whose kernel runs a loop of its own, and gevent, which replaces threads."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.extended

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def notebook():
    """Runs cells in a real kernel, and gives what they print, or with ``kind`` what they show in that form."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(HERE))

    def cell(code, kind=None):
        printed = []

        def take(message):
            content = message["content"]
            if kind and "data" in content:
                printed.append(content["data"].get(kind))
            elif not kind:
                printed.append(content.get("text") or "\n".join(content.get("traceback", [])))

        client.execute_interactive(code, timeout=30, output_hook=take)
        return printed if kind else "".join(printed)

    yield cell
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.context.destroy()


class TestNotebook:
    def test_it_just_works_between_cells_and_beside_await(self, notebook):
        cell = "import sys; sys.path.insert(0, '.'); from service import *; client = client()"
        assert notebook(cell) == ""
        assert notebook("say(client.characters.list()[0].model_id)") == "eva_a0008\n"
        # The cell itself runs in the kernel's loop, which waits meanwhile.
        assert notebook("await anyio.sleep(0); say(client.characters.list()[0].model_id)") == "eva_a0008\n"
        loop = "for video in client.videos.watch('one', 'two'): say(video.status.value)"
        assert notebook(loop) == "finished\nfinished\n"

    def test_the_async_client_works_beside_it(self, notebook):
        cell = textwrap.dedent(
            """
            import sys; sys.path.insert(0, '.')
            import a2v
            from service import Service, say
            async with a2v.AsyncA2V("t", base_url="http://127.0.0.1:9", transport=Service()) as own:
                say((await own.characters.list())[0].model_id)
            """
        )
        assert notebook(cell) == "eva_a0008\n"

    def test_values_show_themselves(self, notebook):
        notebook("import sys; sys.path.insert(0, '.'); from service import *; client = client()")
        (html,) = notebook("client.characters.list()", "text/html")
        assert "<table" in html
        assert "eva_a0008" in html
        (html,) = notebook("client.characters.list()[0]", "text/html")
        assert "<strong>Eva 01</strong>" in html
        (html,) = notebook("client.videos.get('one')", "text/html")
        assert '<video src="https://files.example/files/one.mp4?signature=s3cret" controls' in html

    def test_a_batch_shows_its_progress_live(self, notebook):
        notebook("import sys; sys.path.insert(0, '.'); from service import *; client = client()")
        cell = textwrap.dedent(
            """
            from IPython.display import display, update_display
            jobs = [a2v.Job("eva_a0008", f"https://example.com/{number}.wav") for number in range(2)]
            with client.batch(jobs) as batch:
                display(batch, display_id="batch")
                for outcome in batch:
                    update_display(batch, display_id="batch")
            """
        )
        shown = notebook(cell, "text/html")
        assert len(shown) == 3
        assert "of 2" in shown[0]
        assert "2 finished of 2" in shown[-1]


def test_gevent(interpreter):
    """With threads replaced by greenlets, calls of many greenlets go on at once, and one that is killed harms nobody."""
    python = interpreter(
        """
        from gevent import monkey
        monkey.patch_all()
        import gevent
        from service import *
        client = client()

        def work(_):
            return client.characters.list()[0].model_id, len(list(client.videos.watch("one", "two")))

        greenlets = [gevent.spawn(work, number) for number in range(20)]
        gevent.joinall(greenlets)
        say({greenlet.value for greenlet in greenlets})
        stuck = gevent.spawn(client.videos.task("stuck").wait)
        while not reached.is_set():
            gevent.sleep(0.01)
        say(client.characters.list()[0].model_id)
        stuck.kill()
        say(client.characters.list()[0].model_id)
        client.close()
        """
    )
    assert python.end() == (0, "{('eva_a0008', 2)}\nready\neva_a0008\neva_a0008\n", "")
