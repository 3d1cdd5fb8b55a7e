"""Where the evidence is strongest, as a Segmentation (PS3.3 A.51)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from service.dicom_results.concepts import ARTIFICIAL_INTELLIGENCE, RELATIONAL, SIDES, body_part_of, quantity_of
from service.dicom_results.instance import Making, algorithm_name, arguments, finish

NOT_ASSESSED = "no slice is assessable: there is no evidence to segment"
NOTHING = "no evidence is positive: there is nothing to segment"


def make_segmentation(making: Making) -> Dataset | str:
    """One segment: the pixels that reach a share of the series' largest positive evidence.

    It is coded as saliency, a spatial concept, and never as the structure or lesion that the model speaks of: a viewer
    that colours segments by their type shows it as what it is. Only slices that hold some of it have a frame;
    those that are not assessable hold none.

    Returns:
        The object, or why there is none.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept

    answer = making.answer
    counted = np.array([one.assessment.assessable != "no" for one in answer.slices])
    if not counted.any():
        return NOT_ASSESSED
    peak = float(answer.saliency[counted].max())
    if peak <= 0:
        return NOTHING
    share = making.options.segment_from
    body_part, side = body_part_of(answer.manifest), SIDES.get(answer.series.laterality)
    segment = SegmentDescription(
        segment_number=1,
        segment_label=f"Model evidence for {making.target}, not a lesion"[:64],
        segmented_property_category=RELATIONAL,
        segmented_property_type=quantity_of(answer.method),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm_name(making),
            family=ARTIFICIAL_INTELLIGENCE,
            version=answer.manifest.version,
            parameters={"explanation": answer.method, "segment_from": f"{share:g}"},
        ),
        tracking_uid=making.uid("segment", 1),
        tracking_id=f"{answer.manifest.id} evidence",
        anatomic_regions=[body_part] if body_part else None,
        display_color=CIELabColor(62.0, 45.0, 62.0),
    )
    if body_part and side:
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [CodedConcept.from_code(side)]
    segment.SegmentDescription = f"At least {share:.0%} of the series' largest positive evidence; research use only"
    ds = Segmentation(
        source_images=making.source.stand_ins,
        pixel_array=np.asarray((answer.saliency >= share * peak) & counted[:, None, None], np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        content_label="EVIDENCE",
        content_description="Model evidence, not a lesion outline. Research use only.",
        **arguments(making, "segmentation"),
    )
    return finish(ds, making, f"AI research: strongest evidence for {making.target}")
