"""Why an export ends."""

from __future__ import annotations


class ExportError(Exception):
    """The parts do not belong together, or one is missing; the message says which and what to run."""


class LabelsChange(Exception):
    """The same anatomy gets another label where it is stored in another way; the message says which, and how often."""
