"""Portraits: one photo or illustration of a face becomes a speaking character. See ``studio`` and ``painter``."""
