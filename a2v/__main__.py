"""``python -m a2v``."""

from a2v.cli import main

main()
