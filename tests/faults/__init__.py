"""Faults against the real service under load: `python -m tests.faults`."""
