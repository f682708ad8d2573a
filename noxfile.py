"""Every check of the project: ``nox`` runs them all, ``nox -l`` lists them, ``nox -s lint types`` runs some."""

from __future__ import annotations

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.reuse_existing_virtualenvs = True
# Tests run on the Pythons that are here: a missing one is skipped, also where $CI is set, and never downloaded.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Last, so that the closing line of the full test run is the last one printed.
PYTHONS = [*(v for v in nox.project.python_versions(PYPROJECT) if v != THIS_PYTHON), THIS_PYTHON]
# Many processes and many faults take minutes; what README.md and the examples do with them is run on every Python.
ONCE_IS_ENOUGH = ["tests/cli", "tests/engine", "tests/faults", "tests/staging", "tests/survival"]
# What one process runs, the longest first: as many run beside each other as there are processors.
PARTS = [
    ["tests/faults"],
    ["tests/engine"],
    ["tests/cli"],
    ["tests/async_", "tests/core"],
    ["tests/survival"],
    ["tests/sync", "tests/testing"],
]
LARGEST_WHEEL = 2_000_000
WITH_LOWEST = [
    "tests/core",
    "tests/async_",
    "tests/test_manifest.py",
    "tests/cli/test_local.py",
    "tests/engine/test_local.py",
]
EXTRAS = [name for name in PYPROJECT["project"]["optional-dependencies"] if name != "all"]
COVERED_IN_FULL = ["*/_core/*", "*/_async/*", "*/_sync/*", "*/errors.py"]


def _show_all_pyenv_versions() -> None:
    """The shims of pyenv stand for versions that were installed but run only those that were selected: select all."""
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    found = [path.name for path in root.glob("versions/3.*") if re.fullmatch(r"3\.\d+\.\d+", path.name)]
    if found:
        os.environ.setdefault("PYENV_ROOT", str(root))
        os.environ.setdefault("PYENV_VERSION", ":".join(sorted(found, key=lambda v: [int(n) for n in v.split(".")])))


_show_all_pyenv_versions()


def _group(*names: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, *names)


def _install_wheel(session: nox.Session, *others: str) -> None:
    wheel = next((ROOT / "dist").glob("*.whl"))
    session.install(f"{wheel}[all]", *others)
    # The version is the same as last time, so pip would keep what an environment that is used again has.
    session.install("--force-reinstall", "--no-deps", str(wheel))


def _run_at_once(session: nox.Session, commands: list[list[str]], env: dict[str, str] | None = None) -> None:
    """Run commands beside each other, on all processors."""

    def run(command: list[str]) -> None:
        # Said when it is through, so that one can be told from another.
        print(session.run(*command, env=env, silent=True), flush=True)

    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        for done in [at_once.submit(run, command) for command in commands]:
            done.result()


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, and its formatter."""
    session.install(*_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def imports(session: nox.Session) -> None:
    """A room imports only from floors below it."""
    session.install(*_group("lint"))
    session.run("lint-imports")


@nox.session
def sync(session: nox.Session) -> None:
    """The committed sync twin is what the generator makes of the async client."""
    session.install(*_group("lint"))
    session.run("python", "tools/generate_sync.py", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy and pyright, and that users see a type for every public name."""
    session.install("-e", ".[all]", *_group("typing"))
    _run_at_once(session, [["pyright"], ["mypy"], ["pyright", "--verifytypes", "a2v", "--ignoreexternal"]])


@nox.session
def docs(session: nox.Session) -> None:
    """The site in ``site/``, without a single warning."""
    session.install("-e", ".[all]", *_group("docs"))
    told = session.run("zensical", "build", "--clean", "--strict", silent=True)
    # Of docstrings that do not fit their signature griffe only warns.
    if not isinstance(told, str) or "griffe:" in told or "arning" in told:
        session.error(str(told))


@nox.session
def build(session: nox.Session) -> None:
    """The sdist, and the wheel made from it; both are fit for PyPI."""
    session.install(*_group("packaging"))
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("validate-pyproject", "pyproject.toml")
    session.run("python", "-m", "build", "--outdir", "dist", silent=True)
    dist = sorted((ROOT / "dist").iterdir())
    session.run("twine", "check", "--strict", *map(str, dist))
    wheel = next(path for path in dist if path.suffix == ".whl")
    session.run("check-wheel-contents", str(wheel))
    if (size := wheel.stat().st_size) > LARGEST_WHEEL:
        session.error(f"{wheel.name} has {size:,} bytes, and {LARGEST_WHEEL:,} is the most it may have")


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """The wheel's tests, on asyncio and trio: all of them on the Python that runs nox, the client's on others."""
    _install_wheel(session, *_group("tests"))
    # Without a safe path `-m` would put this folder first, and the tree would be tested in the wheel's place.
    env = {"PYTHONSAFEPATH": "1", "A2V_TEST_WHEEL": "1"}
    full = session.python == THIS_PYTHON
    if full:
        session.run("coverage", "erase", env=env)
    left_out = [] if full else ONCE_IS_ENOUGH
    parts = [part for part in PARTS if part[0] not in left_out]
    parts.append([f"--ignore={path}" for path in chain(*PARTS, left_out)])
    pytest = ["coverage", "run", "-m", "pytest"] if full else ["pytest"]
    _run_at_once(session, [[*pytest, *part] for part in ([session.posargs] if session.posargs else parts)], env=env)


@nox.session(requires=[f"tests-{THIS_PYTHON}"])
def coverage(session: nox.Session) -> None:
    """Every branch of the client is tested; the rest is reported."""
    session.install("coverage[toml]")
    session.run("coverage", "combine")
    session.run("coverage", "report")
    session.run("coverage", "report", f"--include={','.join(COVERED_IN_FULL)}", "--fail-under=100")


@nox.session(python=nox.project.python_versions(PYPROJECT)[0], requires=["build"], default=False)
def lowest(session: nox.Session) -> None:
    """The client's tests with the lowest versions of what a2v depends on."""
    project = PYPROJECT["project"]
    asked = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(re.sub(r">=([^,]+).*", r"==\1", one) for one in asked), encoding="utf-8")
    _install_wheel(session, *_group("client"), "--constraint", str(constraints))
    env = {"PYTHONSAFEPATH": "1", "A2V_TEST_WHEEL": "1"}
    session.run("pytest", *(session.posargs or WITH_LOWEST), env=env)


@nox.session(requires=["build"], default=False)
@nox.parametrize("extra", ["", *EXTRAS])
def extras(session: nox.Session, extra: str) -> None:
    """Each extra alone, and none: what is there works, and what is missing says what to install."""
    wheel = next((ROOT / "dist").glob("*.whl"))
    session.install(f"{wheel}[{extra}]" if extra else str(wheel), "pytest")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.run("pytest", "--noconftest", "tests/test_extras.py", env={"PYTHONSAFEPATH": "1"})


@nox.session(requires=["build"], default=False)
def benchmarks(session: nox.Session) -> None:
    """Measurements, with the bounds they must keep: `nox -s benchmarks [-- overhead]`."""
    _install_wheel(session, *_group("benchmarks"))
    names = session.posargs or sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))
    for name in names:
        session.run("python", f"benchmarks/{name}.py")
