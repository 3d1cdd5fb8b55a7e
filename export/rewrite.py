"""Change the manifest of a bundle whose graphs stay: its card follows, and all of it is replaced at once."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from export.card import model_card, segmentation_card
from export.errors import ExportError
from export.writer import put_in_place
from service.bundle import CARD, MANIFEST, read_bundle, sha256
from service.manifest import Manifest
from service.segmenter import SegmentationManifest, is_segmentation, open_segmenter
from service.signature import SIGNATURE


def rewrite(path: Path, changes: Mapping[str, object]) -> bool:
    """Change fields of a bundle's manifest.

    Args:
        path: the bundle's folder.
        changes: new values by field: plain JSON values, or models.

    Returns:
        Whether a signature was dropped, which held for the manifest of before.

    Raises:
        ExportError: there is no manifest, or a file is not the one that it lists.
        ValidationError: what comes out is no manifest.
    """
    content = read_json(path)
    for name, digest in content["files"].items():
        if not (path / name).is_file() or sha256(path / name) != digest:
            raise ExportError(f"{path / name} is not the file that the manifest lists")
    content |= {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in changes.items()}
    content["files"] = {name: digest for name, digest in content["files"].items() if name != CARD}
    outlines = is_segmentation(path)
    described = (SegmentationManifest if outlines else Manifest).model_validate(content)
    card = segmentation_card(described) if isinstance(described, SegmentationManifest) else model_card(described)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        bundle = Path(folder) / path.name
        shutil.copytree(path, bundle)
        (bundle / SIGNATURE).unlink(missing_ok=True)
        (bundle / CARD).write_text(card)
        files = described.files | {CARD: sha256(bundle / CARD)}
        described = described.model_copy(update={"files": files})
        (bundle / MANIFEST).write_text(described.model_dump_json(indent=1) + "\n")
        signed = (path / SIGNATURE).exists()
        if outlines:
            open_segmenter(bundle, device="cpu")
        else:
            read_bundle(bundle)
        put_in_place(bundle, path)
    return signed


def read_json(path: Path) -> dict[str, Any]:
    """Read the manifest of a bundle of any schema version.

    Raises:
        ExportError: there is none, or it is not JSON.
    """
    try:
        content = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} holds no {MANIFEST} that can be read") from error
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise ExportError(f"{path / MANIFEST} is no manifest of a bundle")
    return content
