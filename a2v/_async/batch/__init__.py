"""Batches: many videos, each submitted once, with every step in a journal."""
