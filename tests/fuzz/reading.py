"""What the fuzzer asks for: a file read as the service reads it."""

from __future__ import annotations

from io import BytesIO

import pydicom

from service.errors import RadiolucentError
from service.images.codecs import FILE_ERRORS
from service.images.dicom import read_dicom
from service.preprocessing import prepare
from service.series.reading import read_series
from service.series.selection import read_rules, select
from service.types import PreprocessingSpec
from tests.fuzz.seeds import synthetic

_RULES = read_rules(None, ["brain-mri-resnet50", "retinal-oct-oculusnet"])
_SIBLINGS = synthetic()[:3]  # a whole series; some files are mutated from one of it
_OF_SIBLINGS = {str(pydicom.dcmread(BytesIO(content)).SOPInstanceUID) for content in _SIBLINGS}
_SPECS = (PreprocessingSpec(field_of_view="head", size=64), PreprocessingSpec(field_of_view="scan", size=64))


def read(content: bytes) -> str:
    """Read a file as the service does: as an image, as a series, as one of a series; and prepare it for a model.

    Returns:
        What became of it: the kind of the error, or `image`.

    Raises:
        AssertionError: the answer is none that a client may get.
    """
    names = names_in(content)
    try:
        frames = read_dicom(content, "file")
    except RadiolucentError as error:
        assert error.status < 500, f"{type(error).__name__} would be a {error.status}"
        assert not [name for name in names if name in error.detail], "the error quotes the patient's name"
        outcome = error.kind
    else:
        assert frames
        for spec in _SPECS:
            assert prepare(frames[0], spec).pixels.shape == (spec.size, spec.size)
        assert all(frame.pixels.ndim == 2 and frame.pixels.size for frame in frames)
        assert not [name for name in names for frame in frames if name in str((frame.name, frame.warnings))]
        outcome = "image"
    try:
        found = read_series([content])
        both = read_series([content, *_SIBLINGS])
    except RadiolucentError as error:
        assert error.status < 500, f"{type(error).__name__} would be a {error.status}"
        return f"{outcome}, {error.kind}"
    for series in (*found, *both):
        select(series, _RULES)
        reasons = [one.reason for one in series.left_out]
        texts = str((series.notes, reasons, [one.frame.warnings for one in series.slices]))
        assert not [name for name in names if name in texts], "the series' notes quote the patient's name"
    answered = [
        str(one.header.SOPInstanceUID) for series in both for one in series.slices if "SOPInstanceUID" in one.header
    ]
    assert len(set(answered) & _OF_SIBLINGS) >= 2, "a damaged file takes whole ones with it"
    return f"{outcome}, {'series' if any(series.slices for series in found) else 'nothing'}"


def names_in(content: bytes) -> set[str]:
    """Parts of the patient's name, those that are long enough to be recognised."""
    try:
        name = str(pydicom.dcmread(BytesIO(content), force=True, specific_tags=["PatientName"]).get("PatientName", ""))
    except FILE_ERRORS:
        return set()
    return {part for part in name.replace("^", " ").split() if len(part) > 5}
