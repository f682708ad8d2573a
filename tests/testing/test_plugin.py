"""The fixtures, loaded as a plugin in a pytest process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


@pytest.fixture
def pytest_run(tmp_path):
    """Runs files in an empty folder, with warnings as errors.

    With no ``plugins`` named pytest has to find them itself, and loads all that are installed, which takes seconds.
    """

    def run(*, plugins: tuple[str, ...] = ("anyio", "a2v_pytest"), **files: str) -> subprocess.CompletedProcess[str]:
        for name, source in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        env = {name: value for name, value in os.environ.items() if not name.startswith("A2V_")}
        command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
        if plugins:
            env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            command += [argument for plugin in plugins for argument in ("-p", plugin)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)

    return run


def test_fixtures(pytest_run) -> None:
    done = pytest_run(
        plugins=(),
        test_it="""
            import os
            import a2v
            import pytest

            @pytest.fixture(params=["asyncio", "trio"])
            def anyio_backend(request):
                from a2v.testing import virtual_time

                return virtual_time(request.param)

            @pytest.mark.anyio
            async def test_service(a2v_service):
                a2v_service.render_seconds = 3600
                async with a2v.AsyncA2V("token", transport=a2v_service.transport()) as client:
                    task = await client.videos.generate(model_id="eva_a0008", audio_url="https://e.com/a.wav")
                    await task.wait()
                assert len(a2v_service.submissions) == 1

            def test_server(a2v_service, a2v_server):
                with a2v.A2V() as client:
                    assert client.characters.list()
                assert a2v_server.service is a2v_service
                assert len(a2v_service.calls) == 1

            def test_new_for_each_test(a2v_service):
                assert a2v_service.calls == ()
                assert "A2V_TOKEN" not in os.environ
        """,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_settings_of_ones_own(pytest_run) -> None:
    done = pytest_run(
        conftest="""
            import pytest
            from a2v.testing import Service

            @pytest.fixture
            def a2v_service():
                return Service(token="secret", quota=1)
        """,
        test_it="""
            import a2v

            def test_server(a2v_server):
                with a2v.A2V() as client:
                    client.characters.list()
                assert a2v_server.token == "secret"
                assert a2v_server.service.calls[0].status == 200
        """,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_file_of_tests_in_the_docs(pytest_run) -> None:
    page = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def test_" in block]
    done = pytest_run(test_docs="import a2v\n" + block)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_run_that_does_not_use_it_does_not_import_a2v(pytest_run) -> None:
    """As pytest finds the plugin by itself, through the metadata of the installed project."""
    done = pytest_run(
        plugins=(),
        test_it="""
            import sys

            def test_modules(request):
                assert request.config.pluginmanager.hasplugin("a2v")
                assert "a2v_pytest" in sys.modules
                assert not [name for name in sys.modules if name.partition(".")[0] == "a2v"]
        """,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
