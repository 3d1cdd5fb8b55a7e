"""STARE: about 400 colour fundus photographs with diagnoses, 20 of them with outlined vessels.

Hoover et al., "Locating blood vessels in retinal images by piecewise threshold probing of a matched filter response",
IEEE Trans. Med. Imaging 19(3), 2000. Files, plain or gzipped, at any depth: photographs `im0001.ppm`, vessels
`im0001.ah.ppm` (observer AH) or `im0001.vk.ppm` (VK), and `all-mg-codes.txt` with one line an image: its name, a tab,
its diagnosis codes with spaces between, a tab, the diagnosis in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from training.datasets.pictures import read_green, read_outline
from training.datasets.record import DatasetError, Record

DIAGNOSES_FILE = "all-mg-codes.txt"
OTHER = "14"
# The project's codes with its own short names.
DIAGNOSES: Mapping[str, str] = {
    "0": "normal",
    "1": "emboli",  # Hollenhorst
    "2": "BRAO",  # branch retinal artery occlusion
    "3": "CRAO",  # cilio-retinal artery occlusion
    "4": "BRVO",  # branch retinal vein occlusion
    "5": "CRVO",  # central retinal vein occlusion
    "6": "hemi-CRVO",
    "7": "BDR",  # background (non-proliferative) diabetic retinopathy
    "8": "PDR",  # proliferative diabetic retinopathy
    "9": "ASR",  # arteriosclerotic retinopathy
    "10": "HTR",  # hypertensive retinopathy
    "11": "Coats",
    "12": "macroaneurysm",
    "13": "CNV",  # choroidal neovascularisation
    OTHER: "other",
}
_NAME = re.compile(r"(im\d{4})\.(?:ppm|png|jpg)(?:\.gz)?")
_LINE = re.compile(r"(?P<name>im\d{4})\s+(?P<codes>\d+(?:[ ,]+\d+)*)\s*(?P<words>\D.*)?")


def stare(
    root: Path,
    *,
    labels: Mapping[str, str] = DIAGNOSES,
    block: int = 5,
    observer: Literal["ah", "vk"] = "ah",
    unlabelled: str = "STARE",
) -> list[Record]:
    """Read the photographs; images are the green channel.

    An image has one label: the one that its codes have in common. Codes that `labels` leaves out are passed over,
    and so is 14 (another disease) beside a code that names one. Images with no label or several are left out.

    Args:
        root: folder with the photographs, the vessel outlines and the diagnoses file.
        labels: label by code; `{"0": "normal", "7": "diabetic", "8": "diabetic"}` makes two classes.
        block: how many consecutive numbers make a group. Patients are unknown, and some were photographed twice in
            a row.
        observer: whose vessel outlines the masks are.
        unlabelled: every record's label where the folder has no diagnoses file.

    Raises:
        DatasetError: no photograph found, or a line of the diagnoses file that cannot be read.
    """
    photographs = {match[1]: path for path in sorted(root.rglob("im*")) if (match := _NAME.fullmatch(path.name))}
    if not photographs:
        raise DatasetError(f"{root}: no photographs im0001.ppm or im0001.ppm.gz below this folder")
    outlines = {path.name[:6]: path for path in root.rglob(f"im*.{observer}.ppm*")}
    diagnoses = next(iter(sorted(root.rglob(DIAGNOSES_FILE))), None)
    codes = read_codes(diagnoses) if diagnoses else None
    records: list[Record] = []
    for name, path in photographs.items():
        label = unlabelled if codes is None else _label(codes.get(name, ()), labels)
        if label is None:
            continue
        outline = outlines.get(name)
        records.append(
            Record(
                id=name,
                label=label,
                group=f"block-{int(name[2:]) // block:04d}",
                load_image=partial(read_green, path),
                load_mask=partial(read_outline, outline) if outline else None,
                picture=path,
            )
        )
    if not records:
        raise DatasetError(f"{root}: none of the {len(photographs)} photographs has one of the labels asked for")
    return records


def read_codes(path: Path) -> dict[str, tuple[str, ...]]:
    """Diagnosis codes by image name, from `all-mg-codes.txt`.

    Raises:
        DatasetError: a line that is not a name and codes, or an unknown code.
    """
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text("latin-1").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DatasetError(f"{path}, line {number}: not an image name and diagnosis codes: {line.strip()!r}")
        codes = tuple(str(int(code)) for code in re.split(r"[ ,]+", match["codes"]))
        strangers = [code for code in codes if code not in DIAGNOSES]
        if strangers:
            raise DatasetError(f"{path}, line {number}: unknown diagnosis code {strangers[0]}; there are 0 to {OTHER}")
        found[match["name"]] = codes
    return found


def _label(codes: tuple[str, ...], labels: Mapping[str, str]) -> str | None:
    mapped = {code: labels[code] for code in codes if code in labels}
    if len(mapped) > 1:
        mapped.pop(OTHER, None)
    named = set(mapped.values())
    return named.pop() if len(named) == 1 else None
