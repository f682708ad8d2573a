"""The command line: arguments and printing only."""

from __future__ import annotations

import sys

_USAGE = 2
_INTERRUPTED = 130


def main() -> None:
    """The program ``a2v``."""
    try:
        # Here and not above, so that a missing extra gets a sentence instead of a traceback.
        from a2v.cli.commands import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise
        print(f'a2v: the command line needs {error.name}: pip install "a2v[cli]"', file=sys.stderr)
        sys.exit(_USAGE)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    sys.exit(run(sys.argv[1:]))
