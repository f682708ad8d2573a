"""The checks of the project: ``nox`` runs the default set, ``nox -t extended`` the rest, ``nox -l`` lists them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.reuse_existing_virtualenvs = True
# Tests run on the Pythons that are installed: a missing one is skipped, also where $CI is set, and never downloaded.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
nox.options.default_venv_backend = "uv|virtualenv"

# Tests start hundreds of interpreters, each of which would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = nox.project.python_versions(PYPROJECT)
OTHER_PYTHONS = [version for version in PYTHONS if version != THIS_PYTHON]
# What the other Pythons run: the client and the front door. The rest starts many processes and depends less on the version.
CLIENT = [
    "tests/core",
    "tests/async_",
    "tests/sync",
    "tests/testing",
    "tests/tools",
    "tests/test_examples.py",
    "tests/test_manifest.py",
    "tests/test_package.py",
    "README.md",
    "docs",
]
WITH_LOWEST = [
    "tests/core",
    "tests/async_",
    "tests/test_manifest.py",
    "tests/cli/test_local.py",
    "tests/engine/test_server.py",
]
# Work stealing keeps neighbours together, which share the servers of their module.
STEALING = ["--dist", "worksteal"]
IN_PARALLEL = ["-n", "auto", *STEALING]
LARGEST_WHEEL = 3_500_000
EXTRAS = [name for name in PYPROJECT["project"]["optional-dependencies"] if name != "all"]
COVERED_IN_FULL = [
    "*/_core/*",
    "*/_async/*",
    "*/_sync/*",
    "*/_values/*",
    "*/a2v/errors.py",
    "*/_budget/store_threads.py",
]
DEFAULT_SET = "not extended"
SIMULATED = [
    str(path.relative_to(ROOT))
    for path in sorted(ROOT.glob("tests/**/test_*.py"))
    if "mark.simulation" in path.read_text(encoding="utf-8")
]
# The tests that cover them, but for simulations; measuring the rest too would take minutes more.
MEASURED = [
    "tests/core",
    "tests/async_",
    "tests/sync",
    "tests/test_arguments.py",
    "tests/test_manifest.py",
    "tests/test_manifest_sources.py",
    "tests/cli/test_dry_run.py",
    "tests/faults/test_connections.py",
    "tests/faults/test_secrets.py",
    "tests/faults/test_security.py",
    "tests/faults/test_tls.py",
]
# `python -m pytest` would put this folder first on the path, and the tree would be tested instead of the wheel.
WHEEL = {"PYTHONSAFEPATH": "1", "A2V_TEST_WHEEL": "1"}


def _show_all_pyenv_versions() -> None:
    """Select every version that pyenv has installed: its shims only run selected versions."""
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    found = [path.name for path in root.glob("versions/3.*") if re.fullmatch(r"3\.\d+\.\d+", path.name)]
    if found:
        os.environ.setdefault("PYENV_ROOT", str(root))
        os.environ.setdefault("PYENV_VERSION", ":".join(sorted(found, key=lambda v: [int(n) for n in v.split(".")])))


_show_all_pyenv_versions()


def _group(*names: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, *names)


def _install_wheel(session: nox.Session, *others: str, extras: str = "[all]") -> None:
    wheel = next((ROOT / "dist").glob("*.whl"))
    session.install(f"{wheel}{extras}", *others)
    # A reused environment may hold an older build of the same version, which a plain install would keep.
    session.install("--force-reinstall", "--no-deps", str(wheel))


def _run_in_parallel(session: nox.Session, *commands: list[str], env: dict[str, str] | None = None) -> None:
    """Run commands next to each other; the output of each is printed when it ends."""

    def run(command: list[str]) -> None:
        print(session.run(*command, env=env, silent=True), flush=True)

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(run, command) for command in commands]:
            done.result()


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff and its formatter, the layers, and the generated sync client."""
    session.install(*_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")
    session.run("python", "tools/generate_sync.py", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy and pyright, and that users see a type for every public name."""
    session.install("-e", ".[all]", *_group("typing"))
    _run_in_parallel(session, ["mypy"], ["pyright"], ["pyright", "--verifytypes", "a2v", "--ignoreexternal"])


@nox.session
def tests(session: nox.Session) -> None:
    """Every behaviour once, on this Python; every branch of the client is covered."""
    session.install("-e", ".[all]", *_group("tests"))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("coverage", "erase")
    # Compiles all tests and libraries once; in a fresh checkout, each worker would otherwise do so, for about ten seconds.
    session.run("pytest", "--collect-only", "-qq", silent=True)
    measured = [*MEASURED, "-m", f"{DEFAULT_SET} and not simulation"]
    others = [f"--ignore={path}" for path in MEASURED]
    # Those that are not measured mostly wait, for processes and sockets, so more of them than processors are run at once.
    processors = os.cpu_count() or 1
    _run_in_parallel(
        session,
        ["coverage", "run", "-m", "pytest", "-n", str(processors), *STEALING, *measured],
        ["pytest", "-n", str(2 * processors), *STEALING, *others],
        ["pytest", *SIMULATED, "-m", f"{DEFAULT_SET} and simulation"],
    )
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", f"--include={','.join(COVERED_IN_FULL)}", "--fail-under=100")


@nox.session(tags=["extended"], default=False)
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
        session.error(f"{wheel.name} has {size:,} bytes; the limit is {LARGEST_WHEEL:,}")


@nox.session(tags=["extended"], default=False)
def docs(session: nox.Session) -> None:
    """The site in ``site/``, without a single warning, and the same as plain text for language models."""
    session.install("-e", ".[all]", *_group("docs"))
    told = session.run("zensical", "build", "--clean", "--strict", silent=True)
    # griffe only warns about docstrings that do not match their signature.
    if not isinstance(told, str) or "griffe:" in told or "arning" in told:
        session.error(str(told))
    session.run("python", "tools/generate_llms.py", "site")


@nox.session(python=PYTHONS[0], requires=["build"], tags=["extended"], default=False)
def lowest(session: nox.Session) -> None:
    """The client's tests with the lowest supported versions of the dependencies."""
    project = PYPROJECT["project"]
    required = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    lowest = [re.sub(r">=([^,]+).*", r"==\1", one) for one in required]
    # The pytest plugin of anyio 4.14 imports a name that pytest 9.2 warns about.
    lowest.append("pytest<9.2")
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lowest), encoding="utf-8")
    _install_wheel(session, *_group("tests"), "--constraint", str(constraints))
    session.run("pytest", *IN_PARALLEL, *(session.posargs or WITH_LOWEST), env=WHEEL)


@nox.session(requires=["build"], tags=["extended"], default=False)
@nox.parametrize("extra", ["", *EXTRAS])
def extras(session: nox.Session, extra: str) -> None:
    """Each extra alone, and none: what is installed works, and what is missing says what to install."""
    _install_wheel(session, "pytest", extras=f"[{extra}]" if extra else "")
    session.run("pytest", "--noconftest", "tests/test_extras.py", env={"PYTHONSAFEPATH": "1"})


@nox.session(python=OTHER_PYTHONS, requires=["build"], tags=["extended"], default=False)
def pythons(session: nox.Session) -> None:
    """The client's tests against the wheel, on each other Python that is installed."""
    _install_wheel(session, *_group("tests"))
    session.run("pytest", *IN_PARALLEL, *(session.posargs or CLIENT), env=WHEEL)


@nox.session(requires=["build"], tags=["extended"], default=False)
def extended(session: nox.Session) -> None:
    """Tests against the wheel that repeat a behaviour at length or need further tools and services."""
    _install_wheel(session, *_group("extended"))
    pytest = ["pytest", "-m", "extended"]
    if session.posargs:
        session.run(*pytest, *session.posargs, env=WHEEL)
        return
    # The fault matrix mostly waits for timeouts, and shares its results within one process.
    matrix, fuzz = "tests/faults/test_toxics.py", "tests/faults/test_fuzz.py"
    _run_in_parallel(session, [*pytest, matrix], [*pytest, *IN_PARALLEL, f"--ignore={matrix}"], env=WHEEL)
    session.run("pytest", fuzz, env=WHEEL | {"A2V_FUZZ_CASES": "4000"})
    properties = ["-m", "hypothesis and not extended", "--hypothesis-profile", "long"]
    session.run("pytest", *IN_PARALLEL, *properties, "tests/core", env=WHEEL)


@nox.session(requires=["build"], tags=["extended"], default=False)
def recipes(session: nox.Session) -> None:
    """The example for Prefect, which is too large for the other sessions."""
    _install_wheel(session, *_group("recipes"))
    session.run("pytest", "-m", "extended", "-k", "prefect", "tests/test_recipes.py", *session.posargs, env=WHEEL)


@nox.session(requires=["build"], default=False)
def benchmarks(session: nox.Session) -> None:
    """Measurements, with the bounds they must keep: `nox -s benchmarks [-- overhead]`."""
    _install_wheel(session, *_group("benchmarks"))
    names = session.posargs or sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))
    for name in names:
        session.run("python", f"benchmarks/{name}.py")
