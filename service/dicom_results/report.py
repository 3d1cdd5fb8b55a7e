"""The answer as a Structured Report: TID 1500 Measurement Report (PS3.16), Comprehensive 3D SR (PS3.3 A.35.13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from service.assessment import said
from service.dicom_results import concepts
from service.dicom_results.concepts import body_part_of, concept_of, probability_of
from service.dicom_results.instance import MANUFACTURER, RESEARCH, Making, algorithm_name, arguments, finish
from service.dicom_results.references import by_instance, evidence
from service.manifest import Finding, Manifest
from service.series.answer import SeriesAnswer, SeriesFinding

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
        SourceImageForMeasurementGroup,
    )

_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")


def make_report(making: Making, maps: Sequence[Dataset]) -> Dataset:
    """The report: a measurement group (TID 1501) for each finding, and one for the classes.

    A finding's group holds what is decided of it, its pooled probability, and the probability of every slice that
    carries it with a reference to that slice, strongest first. The last group holds the most probable class and the
    pooled probability of each. Each names the model and its version as the algorithm (TID 4019), and refers to the maps
    of the evidence. Comments say that this is for research, and whether and why the series is not assessable: then no
    finding is present and no class is the most probable one.

    Args:
        making: the answer.
        maps: what was made before and is referred to: Parametric Map, Segmentation.
    """
    from highdicom.sr import CodedConcept, Comprehensive3DSR, MeasurementReport, RelationshipTypeValues, TextContentItem

    answer = making.answer
    findings = {finding.name: finding for finding in answer.manifest.findings}
    groups = [_finding_group(making, one, findings[one.name]) for one in answer.findings]
    groups.append(_class_group(making))
    for group in groups:
        _refer_to(group, maps, making)
    content = MeasurementReport(_observer(making), _PROCEDURE, groups, title=_TITLE)[0]
    for text in report_texts(answer):
        comment = TextContentItem(CodedConcept.from_code(concepts.COMMENT), text, RelationshipTypeValues.CONTAINS)
        content.ContentSequence.append(comment)
    ds = Comprehensive3DSR(
        evidence=[*_evidence(making), *maps],
        content=content,
        is_complete=True,
        record_evidence=False,
        **arguments(making, "report"),
    )
    ds.CurrentRequestedProcedureEvidenceSequence = evidence(answer.series, making.source.references, maps)
    return finish(ds, making, f"AI research: report, {answer.manifest.title}")


def report_texts(answer: SeriesAnswer) -> list[str]:
    """The comments of a report: they hold nothing of the patient, and may stay where it is de-identified."""
    return [RESEARCH, *said(answer.assessment.assessable, answer.assessment.reasons)]


def _finding_group(making: Making, one: SeriesFinding, finding: Finding) -> MeasurementsAndQualitativeEvaluations:
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, QualitativeEvaluation, TrackingIdentifier

    answer = making.answer
    slices = [{result.name: result.probability for result in each.prediction.findings} for each in answer.slices]
    carried_by = one.carriers or range(len(slices))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(making.uid("finding", one.name), f"{answer.manifest.id} {one.name}"),
        finding_type=concept_of(finding, answer.manifest),
        algorithm_id=_algorithm(making, _limits(finding, answer.manifest)),
        finding_sites=_sites(making),
        measurements=[
            _probability(one.probability, concepts.POOLED),
            *(_probability(slices[index][one.name], concepts.OF_SLICE, making, index) for index in one.carriers),
        ],
        qualitative_evaluations=[QualitativeEvaluation(concepts.PRESENCE, concepts.presence_of(one.decision))],
        source_images=_images(making, carried_by),
    )


def _limits(finding: Finding, manifest: Manifest) -> str:
    bounds = manifest.series_limits.get(finding.name)
    if bounds is None:
        return f"present from {finding.operating_point.threshold:.6g}"
    return f"present from {bounds.present_from:.6g}, absent to {bounds.absent_to:.6g}"


def _class_group(making: Making) -> MeasurementsAndQualitativeEvaluations:
    """The classes are no findings of their own: a group that named each as one would report what is not there.

    A kind of finding is named as the most probable class only where the type is assessed.
    """
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, QualitativeEvaluation, TrackingIdentifier

    answer, manifest = making.answer, making.answer.manifest
    label = next(label for label in manifest.labels if label.name == answer.label)
    assessment = answer.assessment
    named = assessment.assessable != "no" and (assessment.type_assessed or label.healthy)
    chosen = concept_of(label, manifest) if named else concepts.NOT_EVALUATED
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(making.uid("classes"), f"{manifest.id} classes"),
        algorithm_id=_algorithm(making),
        finding_sites=_sites(making),
        measurements=[
            _probability(answer.probabilities[label.name], concepts.POOLED, name=probability_of(label, manifest))
            for label in manifest.labels
        ],
        qualitative_evaluations=[QualitativeEvaluation(concepts.MOST_PROBABLE, chosen)],
        source_images=_images(making, range(len(answer.slices))),
    )


def _probability(
    value: float, method: Code, making: Making | None = None, index: int = 0, name: Code = concepts.PROBABILITY
) -> Measurement:
    """A probability 0..1, of the series, or of one slice that it then refers to."""
    from highdicom.sr import Measurement, SourceImageForMeasurement

    images = None
    if making is not None:
        real = making.source.references[index]
        frames = None if real.frame is None else [real.frame]
        images = [SourceImageForMeasurement(real.sop_class, real.sop_instance, frames)]
    return Measurement(name, float(f"{value:.6g}"), concepts.NO_UNITS, method=method, referenced_images=images)


def _images(making: Making, indices: Iterable[int]) -> list[SourceImageForMeasurementGroup]:
    from highdicom.sr import SourceImageForMeasurementGroup

    return [
        SourceImageForMeasurementGroup(real.sop_class, real.sop_instance, sorted(frames) or None)
        for real, frames in by_instance(making.source.references[index] for index in indices)
    ]


def _refer_to(group: MeasurementsAndQualitativeEvaluations, maps: Sequence[Dataset], making: Making) -> None:
    from highdicom.sr import ImageContentItem, RelationshipTypeValues

    for ds in maps:
        item = ImageContentItem(
            concepts.quantity_of(making.answer.method),
            ds.SOPClassUID,
            ds.SOPInstanceUID,
            referenced_segment_numbers=[1] if "SegmentSequence" in ds else None,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        group[0].ContentSequence.append(item)


def _algorithm(making: Making, *more: str) -> AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    answer = making.answer
    about = answer.slices[0].saliency
    return AlgorithmIdentification(
        name=algorithm_name(making),
        version=answer.manifest.version,
        parameters=[f"explanation {answer.method}", f"explained class {about.target.name}", *more],
        family=concepts.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _sites(making: Making) -> list[FindingSite] | None:
    from highdicom.sr import FindingSite

    part = body_part_of(making.answer.manifest)
    side = concepts.SIDES.get(making.answer.series.laterality)
    return None if part is None else [FindingSite(anatomic_location=part, laterality=side)]


def _observer(making: Making) -> ObservationContext:
    """The model as the device that observed (TID 1004)."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes

    manifest = making.answer.manifest
    device = DeviceObserverIdentifyingAttributes(
        uid=making.model_uid, name=manifest.id, manufacturer_name=MANUFACTURER, model_name=manifest.id
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _evidence(making: Making) -> list[Dataset]:
    """Stand-ins under the names of the real instances: highdicom asks for all that the content refers to."""
    made: dict[str, Dataset] = {}
    for ds, real in zip(making.source.stand_ins, making.source.references, strict=True):
        made[real.sop_instance] = named = copy(ds)
        named.SOPInstanceUID = real.sop_instance
    return list(made.values())
