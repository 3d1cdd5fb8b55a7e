"""What PS3.3 says of modules and classes, as far as highdicom's tables (private ones of it) hold it."""

from __future__ import annotations


def patient_and_study_keywords() -> list[str]:
    """Attributes of the modules of patient and study (PS3.3 C.7.1, C.7.2), those outside of sequences."""
    from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map

    parts = get_iod_module_map()["secondary-capture-image"]
    modules = [part["key"] for part in parts if part["ie"] in ("Patient", "Study")]
    attributes = get_module_attribute_map()
    return [str(item["keyword"]) for key in modules for item in attributes[key] if not item["path"]]


def may_have_frames(sop_class: str) -> bool:
    """Whether instances of a class can have several frames; a class that is not known can."""
    from highdicom._standard_utils import get_sop_class_iod_map, is_attribute_in_iod

    return sop_class not in get_sop_class_iod_map() or is_attribute_in_iod("NumberOfFrames", sop_class)
