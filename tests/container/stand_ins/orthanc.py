"""Starts Debian's Orthanc as the image of deploy/compose.yaml starts its own: its settings are in the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

PREFIX = "ORTHANC__"
FOLDER = "/var/lib/orthanc/db"
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def value(text: str) -> Any:
    """As JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings(environment: dict[str, str]) -> dict[str, Any]:
    """`ORTHANC__DICOM_AET` is `DicomAet`."""
    named = {name.removeprefix(PREFIX): said for name, said in environment.items() if name.startswith(PREFIX)}
    said = {name.title().replace("_", ""): value(text) for name, text in named.items()}
    plugins = [PLUGIN] if environment.get("DICOM_WEB_PLUGIN_ENABLED") == "true" else []
    return {"StorageDirectory": FOLDER, "IndexDirectory": FOLDER, "Plugins": plugins, **said}


if __name__ == "__main__":
    file = Path("/tmp/orthanc.json")  # noqa: S108 - the container's own
    file.write_text(json.dumps(settings(dict(os.environ))))
    os.execv("/usr/sbin/Orthanc", ["Orthanc", str(file)])  # noqa: S606 - no shell is needed
