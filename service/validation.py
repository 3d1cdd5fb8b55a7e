"""What comes from outside or from a file: models that take nothing but what they name, and how a fault is told."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """A value that does not change. Fields that it does not have are refused: a misspelt one would say nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def faults_of(error: ValidationError, whole: str) -> str:
    """Every field that is wrong, and how, on one line.

    Values are not in it, for some are secret or a patient's, unless a model's own validator quotes one.

    Args:
        error: of a model.
        whole: what the model as a whole is called, where the fault is not in a field.
    """
    faults = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or whole}: {fault['msg']}" for fault in faults)
