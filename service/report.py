"""One case on one page, as PDF: image, evidence, probabilities, and what they are worth."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime

from fpdf import FPDF
from fpdf.enums import XPos, YPos
from PIL import Image

from service.answers import decoded
from service.assessment import said
from service.bundle import GRAPH, Bundle
from service.manifest import Estimate, Finding, Manifest
from service.rendering import display_grey
from service.schemas import RESEARCH_NOTICE, ExplanationAnswer, ImageAnswer
from service.types import Frame

_MARGIN, _WIDTH, _BOTTOM = 14.0, 182.0, 283.0  # mm, of an A4 page
_GAP, _TALLEST = 6.0, 88.0
_INK, _PALE, _ACCENT, _TRACK = (23, 32, 38), (90, 103, 112), (10, 99, 117), (226, 232, 235)
_QUALITY = {
    "pointing_game": "peak inside the outlined lesion",
    "mass": "positive values inside the outline",
    "insertion": "insertion (higher is better)",
    "deletion": "deletion (lower is better)",
}


@dataclass(frozen=True, slots=True)
class ReportedCase:
    """What a report is made of.

    Attributes:
        frame: decoded.
        number: of the frame in its file, from 1.
        frames: of the file.
        answer: for that frame, with one map and its overlay.
        bundle: the model that answered.
        request_id: of the answer; it is in the log as well where something failed.
    """

    frame: Frame
    number: int
    frames: int
    answer: ImageAnswer
    bundle: Bundle
    request_id: str


def case_report(case: ReportedCase) -> bytes:
    """A PDF of one A4 page. It names neither file nor patient.

    Args:
        case: what was found.
    """
    pdf = FPDF(format="A4")
    pdf.set_margin(_MARGIN)
    pdf.set_auto_page_break(auto=False)
    pdf.set_title("Radiolucent case report")
    pdf.set_creator("Radiolucent")
    pdf.set_lang("en")
    pdf.add_page()
    _head(pdf, case)
    _pictures(pdf, case)
    _probabilities(pdf, case)
    _evidence(pdf, case)
    _model(pdf, case)
    _foot(pdf)
    return bytes(pdf.output())


def _write(pdf: FPDF, text: str, size: float = 9, *, bold: bool = False, pale: bool = False, gap: float = 0.0) -> None:
    """A paragraph; what would run off the page is left out, but never silently."""
    pdf.set_font("Helvetica", "B" if bold else "", size)
    pdf.set_text_color(*(_PALE if pale else _INK))
    height = size * 0.46
    text = _latin(text)
    lines = pdf.multi_cell(_WIDTH, height, text, dry_run=True, output="LINES")
    assert isinstance(lines, list)  # noqa: S101 - what `output` asks for
    room = int((_BOTTOM - 14 - pdf.get_y()) / height)
    if len(lines) > room:
        text = "\n".join([*lines[: max(0, room - 1)], "(continued in the model card)"]) if room > 0 else ""
    if text:
        pdf.multi_cell(_WIDTH, height, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT, align="L")
    pdf.ln(gap)


def _latin(text: str) -> str:
    """The characters that the standard fonts of PDF have."""
    return text.replace("−", "-").encode("latin-1", "replace").decode("latin-1")


def _head(pdf: FPDF, case: ReportedCase) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    place = f"frame {case.number} of {case.frames}, " if case.frames > 1 else ""
    _write(pdf, "Radiolucent: case report", 15, bold=True, gap=0.5)
    _write(pdf, f"{now}; {place}request {case.request_id}", 8, pale=True, gap=1.5)
    pdf.set_fill_color(253, 241, 216)
    pdf.set_text_color(122, 75, 0)
    pdf.set_font("Helvetica", "B", 9)
    pdf.multi_cell(_WIDTH, 6, RESEARCH_NOTICE, fill=True, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    answer = case.answer
    lines = [*said(answer.assessable, answer.reasons), *(f"Warning: {text}" for text in case.frame.warnings)]
    for line in lines:
        pdf.set_font("Helvetica", "", 9)
        pdf.multi_cell(_WIDTH, 5, _latin(line), fill=True, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.ln(3)


def _pictures(pdf: FPDF, case: ReportedCase) -> None:
    """The image, and beside it the same with the evidence."""
    shown = _explanation(case)
    assert shown.overlay is not None  # noqa: S101 - asked for by the route
    grey = display_grey(case.frame)
    width = min((_WIDTH - _GAP) / 2, _TALLEST * grey.shape[1] / grey.shape[0])
    top, second = pdf.get_y(), _MARGIN + (_WIDTH + _GAP) / 2
    left = pdf.image(Image.fromarray(grey), _MARGIN + pdf.c_margin, top, w=width, alt_text="the image")
    overlay = base64.b64decode(shown.overlay)
    right = pdf.image(overlay, second, top, w=width, alt_text="the image with the evidence in colour")
    pdf.set_y(top + max(left.rendered_height, right.rendered_height) + 3)


def _probabilities(pdf: FPDF, case: ReportedCase) -> None:
    manifest, answer = case.bundle.manifest, case.answer
    _write(pdf, f"{_display(case, answer.label)} is the most probable of the model's classes", 12, bold=True, gap=1)
    for label in manifest.labels:
        share, y = answer.probabilities[label.name], pdf.get_y()
        pdf.set_font("Helvetica", "B" if label.name == answer.label else "", 9)
        pdf.set_text_color(*_INK)
        pdf.cell(46, 5, _latin(label.display))
        pdf.set_fill_color(*_TRACK)
        pdf.rect(_MARGIN + 48, y + 1.2, 110, 2.8, "F")
        pdf.set_fill_color(*_ACCENT)
        pdf.rect(_MARGIN + 48, y + 1.2, max(0.2, 110 * share), 2.8, "F")
        pdf.set_x(_MARGIN + 162)
        pdf.cell(20, 5, f"{share:.1%}", align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.ln(1)
    for finding in manifest.findings:
        found = answer.findings[finding.name]
        limits = _limits(finding, manifest)
        _write(pdf, f"{finding.display}: {found.decision}, probability {found.probability:.1%} ({limits})")
    if answer.prediction_set is not None and manifest.conformal is not None:
        possible = ", ".join(_display(case, name) for name in answer.prediction_set) or "none of the classes"
        _write(pdf, f"At an error rate of {manifest.conformal.error_rate:.0%} it may be: {possible}")
    error = manifest.evaluation.metrics.get("ece_after")
    measured = "" if error is None else f"; on the test part they are off by {error.value:.1%} on average"
    _write(
        pdf,
        f"Probabilities are calibrated (temperature {manifest.temperature:.2f}){measured}. They are about this model's "
        "classes only, on images like those that it was trained on.",
        8,
        pale=True,
        gap=2,
    )


def _limits(finding: Finding, manifest: Manifest) -> str:
    bounds = manifest.image_limits.get(finding.name)
    if bounds is None:
        return f"operating point {finding.operating_point.threshold:.1%}: {finding.operating_point.chosen_by}"
    return f"present from {bounds.present_from:.1%}, absent to {bounds.absent_to:.1%}"


def _evidence(pdf: FPDF, case: ReportedCase) -> None:
    shown = _explanation(case)
    against = f", and not {_display(case, shown.against)}" if shown.against else ""
    described = next(e for e in case.bundle.manifest.explanations if e.method == shown.method)
    rows, columns = shown.shape
    values = decoded(shown)
    _write(pdf, f"Evidence: {shown.method} for {_display(case, shown.target)}{against}", 11, bold=True, gap=0.5)
    _write(
        pdf,
        f"{described.meaning}. {described.source}. {rows} x {columns} cells, values {values.min():.3g} to "
        f"{values.max():.3g}; the colours show positive values. "
        f"{'Computed exactly' if shown.exact else 'An estimate'} ({shown.stopped}).",
    )
    quality = [f"{words} {_estimate(shown.quality[name])}" for name, words in _QUALITY.items() if name in shown.quality]
    if quality:
        _write(pdf, f"How good such maps were found to be (95 % intervals): {'; '.join(quality)}.", gap=2)


def _model(pdf: FPDF, case: ReportedCase) -> None:
    manifest = case.bundle.manifest
    evaluation = manifest.evaluation
    _write(pdf, f"Model: {manifest.title}", 11, bold=True, gap=0.5)
    _write(pdf, f"{manifest.id} {manifest.version}; SHA-256 of its graph {manifest.files[GRAPH]}", 8, pale=True)
    _write(pdf, f"Trained on: {manifest.provenance.training_data}")
    if "accuracy" in evaluation.metrics:
        measured = f"{evaluation.images} images in {evaluation.groups} groups that no choice looked at"
        _write(pdf, f"Accuracy {_estimate(evaluation.metrics['accuracy'])} on {measured}.")
    _write(pdf, manifest.intended_use)
    if manifest.limits:
        _write(pdf, "Limits: " + " ".join(manifest.limits), 8, pale=True)


def _foot(pdf: FPDF) -> None:
    pdf.set_y(_BOTTOM - 8)
    pdf.set_font("Helvetica", "", 7.5)
    pdf.set_text_color(*_PALE)
    pdf.multi_cell(_WIDTH, 3.6, RESEARCH_NOTICE + " Made by Radiolucent; the image's file and patient are not named.")


def _explanation(case: ReportedCase) -> ExplanationAnswer:
    return case.answer.explanations[0]


def _display(case: ReportedCase, name: str) -> str:
    return next(label.display for label in case.bundle.manifest.labels if label.name == name)


def _estimate(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
