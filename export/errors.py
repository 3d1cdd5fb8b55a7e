"""Why an export ends."""

from __future__ import annotations


class ExportError(Exception):
    """The parts do not belong together, or one is missing; the message says which and what to run."""
