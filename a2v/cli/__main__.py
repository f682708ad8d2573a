"""``python -m a2v.cli``."""

from a2v.cli import main

main()
