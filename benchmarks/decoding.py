"""Pictures of DICOM files as the service decodes them, beside those that dcmtk shows.

    python -m benchmarks.decoding [FOLDER] [--json FILE]

Every DICOM file below the folder (without one the files that pydicom brings for its own tests) is decoded, and shown by
dcmtk's dcm2pnm, dcmj2pnm or dcml2pnm with the same VOI LUT, the same window, or its whole range. Of every frame the
correlation of both pictures is taken, colour as luma; a file has that of its worst frame.

    same       at least 0.999
    explained  less, for a reason that is known (`EXPLAINED`)
    differs    less, or another number of frames or another size: status 1
    refused    the service gives a reason, and dcmtk a picture: the reason is to be looked at
    only here  the service gives a picture, and dcmtk has no decoder for it, or refuses it
    neither    the service gives a reason, and dcmtk no picture
    no image   the service finds no pixel data, and dcmtk no picture
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from service.errors import NoPixelData, UnreadableImage
from service.images.parsing import parse
from service.images.reading import read_frames, sniff
from service.types import Frame

ALIKE = 0.999
_WORDS = "dcmtk takes the words of 32-bit big-endian pixels in another order; decoded as the little-endian original"
EXPLAINED = {"rtdose_expb.dcm": _WORDS, "rtdose_expb_1frame.dcm": _WORDS}  # of pydicom's files
_PROGRAMS = ("dcmj2pnm", "dcml2pnm", "dcm2pnm")  # of JPEG, of JPEG-LS, and of what neither was built for
_SECONDS = 60


def display(frame: Frame) -> NDArray[Any]:
    """Return a frame as people see it, `[H, W]`."""
    return frame.shown()


def shown_by_dcmtk(path: Path, transform: list[str]) -> list[NDArray[np.float64]]:
    """Have dcmtk show every frame, `[H, W]`, 0 to 65535 or 0 to 255; none where it does not."""
    for program in filter(shutil.which, _PROGRAMS):
        with TemporaryDirectory() as folder:
            command = [program, "-q", "-O", "-S", "+Fa", "+on2", *transform, str(path), str(Path(folder, "frame"))]
            try:
                done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
            except subprocess.TimeoutExpired:
                continue
            files = sorted(Path(folder).iterdir(), key=lambda file: int(file.suffixes[-2][1:]))
            if done.returncode == 0 and files:
                return [_grey(file) for file in files]
    return []


def _grey(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as image:
        return np.asarray(image if image.mode.startswith("I") else image.convert("L"), np.float64)


def transform_of(ds: Dataset) -> list[str]:
    """Options with which dcmtk shows what the service does: the first VOI LUT, else the first window, else all."""
    groups: list[Dataset] = [ds]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (ds.get(keyword) or ())[:1]:
            groups += group.get("FrameVOILUTSequence") or ()
    for group in groups[::-1]:  # dcmtk knows no functional groups, so that it must be told what is in them
        if "LUTData" in ((group.get("VOILUTSequence") or [Dataset()])[0]):
            return ["+Wl", "1"]
        windows = [np.atleast_1d(group.get(f"Window{part}") or []) for part in ("Center", "Width")]
        if all(map(len, windows)) and windows[1][0] >= 1:
            return ["+Ww", *(str(float(part[0])) for part in windows)]
    return ["+Wm"] if str(ds.get("PhotometricInterpretation")).upper().startswith("MONOCHROME") else []


def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Correlate two pictures; 0 where they are of different size or one of them is flat, 1 where both are flat."""
    if a.shape != b.shape:
        return 0.0
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float(np.ptp(a) == np.ptp(b))
    return float(np.corrcoef(a.ravel().astype(np.float64), b.ravel())[0, 1])


def row_of(path: Path, name: str) -> dict[str, Cell]:
    """Compare one file."""
    content = path.read_bytes()
    frames: list[Frame] = []
    transform: list[str] = []
    syntax, kind, reason, worst = "", "", "", None
    try:
        ds = parse(content)
        syntax = UID(ds.file_meta.TransferSyntaxUID).name
        frames = read_frames(content, "")
        transform = transform_of(ds)
    except UnreadableImage as error:
        kind, reason = error.kind, error.detail
    theirs = shown_by_dcmtk(path, transform)
    if kind:
        verdict = "refused" if theirs else "no image" if kind == NoPixelData.kind else "neither"
    elif not theirs:
        verdict = "only here"
    else:
        worst = min(correlation(display(frame), other) for frame, other in zip(frames, theirs, strict=False))
        verdict = "same" if worst >= ALIKE and len(frames) == len(theirs) else "differs"
        if verdict == "differs" and path.name in EXPLAINED:
            verdict, reason = "explained", EXPLAINED[path.name]
    return {
        "file": name,
        "transfer syntax": syntax,
        "frames": len(frames),
        "verdict": verdict,
        "correlation": worst,
        "reason": reason,
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("decoding", __doc__)
    made.add_argument("data", type=Path, nargs="?", metavar="FOLDER", help="default: pydicom's own test files")
    options = made.parse_args(arguments)
    if not any(map(shutil.which, _PROGRAMS)):
        raise SystemExit("dcmtk is not installed (Debian: dcmtk)")
    folder: Path = options.data or Path(pydicom.__file__).parent / "data" / "test_files"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and sniff(path.read_bytes()) == "dicom"]
    if not files:
        raise SystemExit(f"no DICOM file below {folder}")
    rows = [row_of(path, str(path.relative_to(folder))) for path in tqdm(files, unit="file", leave=False)]
    where, verdicts = machine("cpu", 1), Counter(str(row["verdict"]) for row in rows)
    show("decoding", [row for row in rows if row["verdict"] not in ("same", "no image")] or rows[:1], where)
    show("decoding", [dict(verdicts)], where)
    versions = {"dcmtk": _version(), "pydicom": pydicom.__version__}
    save(options, where, versions=versions, verdicts=dict(verdicts), rows=rows)
    return int("differs" in verdicts)


def _version() -> str:
    program = next(filter(shutil.which, _PROGRAMS))
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[2]


if __name__ == "__main__":
    sys.exit(main())
