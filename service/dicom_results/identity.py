"""Names of what is made: the same input, model, method and options give the same UIDs (PS3.5 B.2)."""

from __future__ import annotations

import json
import uuid
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

from service.dicom_results.options import Options
from service.series.answer import SeriesAnswer

_NAMESPACE = uuid.UUID("6f0a2f6e-2f0c-5a52-9a3e-6c1f6f1d7a55")


def service_version() -> str:
    """Version of this service."""
    try:
        return f"radiolucent {version('radiolucent')}"
    except PackageNotFoundError:
        return "radiolucent, not installed"


def answer_key(answer: SeriesAnswer, options: Options) -> str:
    """What the UIDs of an answer's objects are made of, as a SHA-256 digest (hexadecimal).

    It covers the source's instances and frames, the files of the model, the method with its parameters, what is
    explained, the options, and the service's version, which the objects name. It leaves out the values found: they may
    differ in the last bit from one machine to the next, and the same question must not be stored twice for that.
    """
    series, manifest = answer.series, answer.manifest
    about = [
        {"method": one.saliency.method, "target": one.saliency.target.name, "against": one.saliency.target.against_name}
        | {"parameters": one.saliency.parameters}
        for one in answer.slices[:1]
    ]
    content = {
        "study": series.study,
        "series": series.series,
        "slices": [(str(one.header.get("SOPInstanceUID", "")), one.number) for one in series.slices],
        "model": (manifest.id, manifest.version, sorted(manifest.files.items())),
        "method": answer.method,
        "about": about,
        "service": service_version(),
        "options": options.model_dump(mode="json"),
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stable_uid(key: str, *parts: str | int) -> str:
    """A UID below 2.25 from a name-based UUID (RFC 9562, version 5) of the key and the parts."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join([key, *map(str, parts)])).int}"
