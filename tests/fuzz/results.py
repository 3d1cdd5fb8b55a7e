"""What the fuzzer also asks for: DICOM results made for mutated sources, whole and de-identified."""

from __future__ import annotations

from service.deidentify import deidentify
from service.dicom_results.options import KINDS
from service.dicom_results.results import make_results
from service.errors import NotDeidentifiable, RadiolucentError
from service.series.reading import read_series
from tests.dicom_writers import saved
from tests.service.dicom_results.answers import answer_to

_KEY = b"key of the fuzzer"
_LARGEST = 2**18  # pixels of a series; results of more take longer than they tell


def make(content: bytes) -> str:
    """Read a file as a series, answer it, make every kind of result, de-identify and write them.

    Returns:
        What became of it.

    Raises:
        AssertionError: an answer that a client may not get.
    """
    try:
        found = read_series([content])
    except RadiolucentError as error:
        assert error.status < 500, type(error).__name__
        return error.kind
    outcomes: set[str] = set()
    for series in found:
        pixels = sum(one.frame.pixels.size for one in series.slices)
        if not series.slices or pixels > _LARGEST:
            outcomes.add("nothing")
            continue
        results = make_results(answer_to(series), KINDS)
        for ds in results.objects:
            saved(ds)
            try:
                saved(deidentify(ds, _KEY))
            except NotDeidentifiable:
                outcomes.add("refused")
        outcomes.add(f"{len({ds.SOPClassUID for ds in results.objects})} kinds")
    return ", ".join(sorted(outcomes))
