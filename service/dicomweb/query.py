"""QIDO-RS: which series an archive has (PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from service.dicomweb.archives import Archive
from service.dicomweb.client import check_uid, whole_answer
from service.errors import InvalidParameter, RemoteRefused

_PAGE = 200
_STUDY, _SERIES, _INSTANCES = "0020000D", "0020000E", "00201209"


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """Study and Series Instance UID, and Number of Series Related Instances (0020,1209), 1 where it is not told."""

    study: str
    series: str
    instances: int


def find_series(archive: Archive, terms: Mapping[str, str]) -> Iterator[FoundSeries]:
    """All series that match, a page of the answer at a time.

    Archives may give fewer than asked for, so that the end is an empty page; one that knows no offset gives the first
    page again, which is taken for the end, too.

    Args:
        archive: that is asked.
        terms: attributes with their values: `{"Modality": "MR", "StudyDate": "20200101-20201231"}`.

    Raises:
        RemoteRefused: the archive does not answer this query, or not with DICOM JSON.
        RemoteUnavailable: the archive failed.
    """
    offset = 0
    before: list[FoundSeries] = []
    while True:
        asked = {**terms, "includefield": _INSTANCES, "limit": str(_PAGE), "offset": str(offset)}
        page = _page(archive, f"{archive.url.rstrip('/')}/series?{urlencode(asked)}")
        if not page or page == before:
            return
        yield from page
        offset, before = offset + len(page), page


def _page(archive: Archive, url: str) -> list[FoundSeries]:
    content = whole_answer(archive, url, "application/dicom+json")
    try:
        return [_found(one) for one in json.loads(content)] if content else []
    except (ValueError, LookupError, TypeError, AttributeError, InvalidParameter):
        raise RemoteRefused("the archive's answer to the query is no DICOM JSON of series") from None


def _found(one: dict[str, Any]) -> FoundSeries:
    study, series = (check_uid(one[tag]["Value"][0]) for tag in (_STUDY, _SERIES))
    told = one.get(_INSTANCES, {}).get("Value") or [1]
    return FoundSeries(study, series, max(1, int(told[0])))
