"""Answers as they look, for the OpenAPI document. The contract tests hold them against the schemas."""

from __future__ import annotations

from service.schemas import OUTLINE_NOTICE, RESEARCH_NOTICE

_IMAGE: dict[str, object] = {
    "name": "slice.png",
    "status": "ok",
    "label": "meningioma",
    "probabilities": {"glioma": 0.02, "meningioma": 0.95, "pituitary": 0.02, "no_tumor": 0.01},
    "findings": {"tumor": {"probability": 0.99, "present": True, "decision": "present"}},
    "assessable": "yes",
    "reasons": [],
    "type_assessed": True,
    "prediction_set": ["meningioma"],
    "gate": {"distance": 0.41},
    "region": [31.0, 12.0, 448.0, 448.0],
    "unseen": 0.2344,
    "plane": "axial",
    "explanations": [],
    "warnings": [],
}
_UNREADABLE: dict[str, object] = {
    "name": "notes.txt",
    "status": "failed",
    "error": {
        "type": "urn:radiolucent:problem:unsupported-format",
        "title": "The file is not a PNG, JPEG or DICOM image",
        "status": 422,
        "detail": "the file starts with none of the signatures of PNG, JPEG and DICOM",
        "request_id": None,
    },
}
_SALIENCY: dict[str, object] = {
    "method": "gradcam",
    "target": "meningioma",
    "against": None,
    "shape": [2, 2],
    "saliency": [[-0.4, 12.5], [0.1, -0.2]],
    "encoding": "numbers",
    "exact": True,
    "parameters": {},
    "evaluations": 0,
    "additivity_error": None,
    "interval": None,
    "stopped": "complete",
    "quality": {"pointing_game": {"value": 0.58, "low": 0.41, "high": 0.74}},
    "overlay": None,
}


def _result(images: list[dict[str, object]]) -> dict[str, object]:
    return {
        "request_id": "5f2d6c0e9a4b4f0c8f4f6f0b7a3c1d2e",
        "model": {"id": "brain-mri-resnet50", "version": "1.0.0"},
        "results": images,
        "timing_ms": {"decode": 5.1, "queue": 0.2, "inference": 38.0, "explanation": 0.6, "total": 44.2},
        "notice": RESEARCH_NOTICE,
    }


PREDICT_EXAMPLE = _result([_IMAGE, _UNREADABLE])
_OUTLINE: dict[str, object] = {
    "name": "slice.png",
    "status": "ok",
    "label": "tumor",
    "present": True,
    "peak": 0.98,
    "threshold": 0.5,
    "size": [512, 512],
    "region": [31.0, 12.0, 448.0, 448.0],
    "unseen": 0.2344,
    "plane": None,
    "contours": [[[201.5, 180.25], [214.5, 187.5], [201.5, 199.0], [188.75, 187.5]]],
    "area_pixels": 242,
    "area_mm2": None,
    "mask": None,
    "warnings": [],
}
SEGMENT_EXAMPLE: dict[str, object] = {
    "request_id": "5f2d6c0e9a4b4f0c8f4f6f0b7a3c1d2e",
    "model": {"id": "brain-mri-unet", "version": "1.0.0"},
    "results": [_OUTLINE, _UNREADABLE],
    "timing_ms": {"decode": 5.1, "queue": 0.2, "inference": 21.0, "outline": 1.9, "total": 28.2},
    "notice": OUTLINE_NOTICE,
}
EXPLAIN_EXAMPLE = _result([_IMAGE | {"explanations": [_SALIENCY]}])
