"""What is wrong with something from outside, told without its values: some are secret, some are a patient's."""

from __future__ import annotations

from pydantic import ValidationError


def faults_of(error: ValidationError, whole: str) -> str:
    """Every field that is wrong, and how, on one line.

    Args:
        error: of a model.
        whole: what the model as a whole is called, where the fault is not in a field.
    """
    faults = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or whole}: {fault['msg']}" for fault in faults)
