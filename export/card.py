"""The model card, generated from the manifest (Mitchell et al., "Model Cards for Model Reporting", FAT* 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from service.manifest import CodedConcept, Conformal, Described, Estimate, Gate, Invariance, Manifest, SeriesPooling
from service.segmenter import SegmentationManifest
from training.markdown import table

NOTICE = "**Research use only: not a medical device.** A saliency map is evidence for a prediction, not an outline."
OUTLINE_NOTICE = "**Research use only: not a medical device.** An outline is what a model draws, not a measurement."
_ORIENTATIONS = {
    "patient": "Slices are turned to the radiological orientation of their plane, from Image Orientation (Patient).",
    "depth": "Scans are turned so that the vitreous is at the top, from Image Orientation (Patient).",
    "stored": "Images are seen as they are stored.",
}


def model_card(manifest: Manifest) -> str:
    """Markdown."""
    evaluation = manifest.evaluation
    overall = {name: value for name, value in evaluation.metrics.items() if "/" not in name}
    blocks = [
        f"# {manifest.title}",
        f"`{manifest.id}` {manifest.version}, licence {manifest.licence}",
        NOTICE,
        "## Intended use",
        manifest.intended_use,
        "## Limits",
        _bullets(manifest.limits),
        "## Input",
        _input(manifest),
        "## Output",
        table(
            ["label", "name", "code", "shows a finding"],
            [[f"`{x.name}`", x.display, _code(x.code), "no" if x.healthy else "yes"] for x in manifest.labels],
        ),
        f"Probabilities are a softmax of the logits divided by the temperature {manifest.temperature:.4f}.",
        *_findings(manifest),
        *_gate(manifest.gate),
        *_conformal(manifest.conformal),
        *_series(manifest.series_pooling),
        "## Explanations",
        table(
            ["method", "exact", "what it is"],
            [[f"`{e.method}`", "yes" if e.exact else "no", e.meaning] for e in manifest.explanations],
        ),
        f"Read off the output `cam` of `{manifest.graph.target_layer}`, "
        f"{manifest.graph.grid[0]} x {manifest.graph.grid[1]} cells.",
        f"## How good it is: {evaluation.images} images, {evaluation.groups} groups of the {evaluation.part} part",
        f"No choice looked at this part. Measured {evaluation.date[:10]} by `{evaluation.command}`; intervals are "
        "95 %, bootstrapped by groups (patients, blocks of neighbouring slices, near copies).",
        _estimates(overall),
        *_by_class(manifest),
        *_optional("### Where the maps lie", evaluation.localisation),
        *_optional("### Source shortcut", evaluation.shortcut),
        f"### What {manifest.graph.weights} weights changed",
        table(["", ""], [[_words(name), f"{value:.6g}"] for name, value in evaluation.half_precision.items()]),
        *_origin(manifest),
    ]
    return "\n\n".join(blocks) + "\n"


def segmentation_card(manifest: SegmentationManifest) -> str:
    """Markdown."""
    evaluation, point, label = manifest.evaluation, manifest.operating_point, manifest.label
    blocks = [
        f"# {manifest.title}",
        f"`{manifest.id}` {manifest.version}, licence {manifest.licence}",
        OUTLINE_NOTICE,
        "## Intended use",
        manifest.intended_use,
        "## Limits",
        _bullets(manifest.limits),
        "## Input",
        _input(manifest),
        "## Output",
        f"For every pixel the probability that it is of `{label.name}` ({label.display}; {_code(label.code)}); inside "
        f"from {point.threshold:.2f} on: {point.chosen_by}.",
        f"## How good it is: {evaluation.images} images, {evaluation.groups} groups of the {evaluation.part} part",
        f"No choice looked at this part. Measured {evaluation.date[:10]} by `{evaluation.command}`; intervals are "
        "95 %, bootstrapped by groups (patients, blocks of neighbouring slices, near copies). `dice` and `iou` are "
        "means over the outlined images on the pixels of the source image, `dice overall` counts all their pixels "
        "together, `found` is the share of them whose outline is touched, `empty called` the share of images without "
        "a finding in which any pixel is called.",
        _estimates(evaluation.metrics),
        f"### What {manifest.weights} weights changed",
        table(["", ""], [[_words(name), f"{value:.6g}"] for name, value in evaluation.half_precision.items()]),
        *_origin(manifest),
    ]
    return "\n\n".join(blocks) + "\n"


def _input(manifest: Described) -> str:
    return (
        f"{manifest.kind.description} DICOM modality {' or '.join(manifest.kind.modalities)}; "
        f"body part {_code(manifest.kind.body_part)}. {_preprocessing(manifest)}"
    )


def _origin(manifest: Described) -> Iterable[str]:
    yield from _stored(manifest)
    yield "## Checks of the exported graph"
    yield table(
        ["check", "largest deviation", "allowed", "images"],
        [[_words(c.check), f"{c.deviation:.2g}", f"{c.tolerance:.0e}", str(c.images)] for c in manifest.parity],
    )
    yield "## Provenance"
    yield _provenance(manifest)
    if manifest.references:
        yield "## References"
        yield _bullets(manifest.references)


def _preprocessing(manifest: Described) -> str:
    spec = manifest.preprocessing
    low, high = spec.window
    return (
        f"It sees modality values, after rescale or Modality LUT; no VOI window. {_ORIENTATIONS[spec.orientation]} "
        f"Pixels are resampled so that rows lie {spec.pixel_aspect:g} times as far apart as columns; images without "
        f"a spacing are taken to be so. The image is cropped to the {spec.field_of_view}, a series to one crop for all "
        f"slices. Its {low:g}th to {high:g}th percentiles are mapped to 0 to 255; padding is black. It is padded to a "
        f"square and resampled to {spec.size} x {spec.size} grey pixels."
    )


def _stored(manifest: Described) -> Iterable[str]:
    found = manifest.invariance
    yield "## How far answers depend on how an image is stored"
    if found is None:
        yield "Not measured."
        return
    yield (
        f"The {found.images} test images, each stored in other ways and read again; measured {found.date[:10]} by "
        f"`{found.command}`, beside the plain file."
    )
    yield changes_table(found)


def changes_table(found: Invariance) -> str:
    """One row for each way to store an image."""
    return table(
        ["stored", "resampled", "labels changed", "largest change of a probability", "map, rank correlation", "lowest"],
        [
            [
                _words(name),
                "yes" if change.resampled else "no",
                f"{change.labels_changed:.2%}",
                f"{change.largest_probability_change:.4f}",
                f"{change.map_correlation:.4f}",
                f"{change.lowest_map_correlation:.4f}",
            ]
            for name, change in found.changes.items()
        ],
    )


def _findings(manifest: Manifest) -> Iterable[str]:
    if manifest.findings:
        yield table(
            ["finding", "name", "code", "sum of", "present from", "chosen by"],
            [
                [
                    f"`{f.name}`",
                    f.display,
                    _code(f.code),
                    ", ".join(f.labels),
                    f"{f.operating_point.threshold:.4f}",
                    f.operating_point.chosen_by,
                ]
                for f in manifest.findings
            ],
        )


def _gate(gate: Gate | None) -> Iterable[str]:
    yield "## Images that it cannot answer"
    if gate is None:
        yield "The model answers every image, of whatever kind it is."
        return
    yield (
        "Each image gets scores that say how far it is from those that the model knows; 0 is typical. From the first "
        "limit on the answer is marked as doubtful, from the second on there is none. The worst score decides. "
        f"Scores and limits were fitted on: {gate.fitted_on}."
    )
    yield table(
        ["score", "doubtful from", "no answer from", "what people are told"],
        [[_words(x.name), f"{x.doubtful:.3f}", f"{x.refused:.3f}", x.reason] for x in gate.scores],
    )
    if gate.type is not None:
        yield (
            f"From {gate.type.not_assessed:.3f} of one more score on only the finding is answered, and not which of "
            f"its labels it is. {gate.type.reason}"
        )
    if gate.metrics:
        yield (
            "Share of images that are doubtful or refused, on images that no choice looked at. `own` are of the "
            "model's kind, and should not be; `foreign` are of other kinds, and should be; `unfitted` are of a kind "
            "that scores were fitted without, as a kind that nobody thought of would be. `not assessed` is the share "
            f"of images whose label is not answered, of those where it can be judged and of others.{_made(gate)}"
        )
        yield _estimates(gate.metrics)


def _series(pooling: SeriesPooling | None) -> Iterable[str]:
    if pooling is None:
        return
    yield "## Series"
    yield (
        f"The {pooling.strongest} slices that speak the most for a finding are averaged, and the mean is calibrated "
        f"for series. Fitted on {pooling.groups} patients or blocks: {pooling.fitted_on}."
    )
    if pooling.error_rate is not None:
        yield (
            "A finding is decided by limits that were fitted on series, so that at most "
            f"{pooling.error_rate:.0%} of those with it, and of those without, are decided wrongly: "
            + "; ".join(
                f"`{name}` present from {both.present_from:.4f}, absent up to {both.absent_to:.4f}"
                for name, both in pooling.findings.items()
            )
            + "."
        )
    if pooling.metrics:
        yield f"Of {pooling.test_groups} others.{_made(pooling)}"
        yield _estimates(pooling.metrics)


def _conformal(limits: Conformal | None) -> Iterable[str]:
    if limits is None:
        return
    yield "## Answers that it leaves open"
    yield (
        f"Limits of probabilities are chosen so that at most {limits.error_rate:.0%} of the images of each class are "
        "answered wrongly (split conformal prediction). The most probable answer always lies within the limits; where "
        "others do, too, the case is not decided. The rate holds for new patients of the same sources only: a site "
        "should calibrate on its own cases (`python -m export.calibrate`). "
        f"Fitted on {limits.images} images of {limits.groups} patients or blocks: {limits.fitted_on}."
    )
    yield table(
        ["answer", "possible"],
        [
            *([f"`{name}`", f"from {value:.4f}"] for name, value in limits.labels.items()),
            *([f"`{name}` present", f"from {both.present_from:.4f}"] for name, both in limits.findings.items()),
            *([f"`{name}` absent", f"up to {both.absent_to:.4f}"] for name, both in limits.findings.items()),
        ],
    )
    if limits.metrics:
        yield (
            "`error` is the share of images of a class whose possible answers lack the truth, `not decided` the share "
            f"with several.{_made(limits)}"
        )
        yield _estimates(limits.metrics)


def _made(of: Gate | Conformal | SeriesPooling) -> str:
    return f" Measured {of.date[:10]} by `{of.command}`; intervals are 95 %, by groups." if of.command else ""


def _by_class(manifest: Manifest) -> Iterable[str]:
    metrics = manifest.evaluation.metrics
    names = list(dict.fromkeys(name.split("/")[0] for name in metrics if "/" in name))
    if names:
        rows = [[x, *(_cell(metrics.get(f"{name}/{x}")) for name in names)] for x in manifest.class_names]
        yield table(["class", *map(_words, names)], rows)


def _optional(title: str, values: Mapping[str, Estimate]) -> Iterable[str]:
    return [title, _estimates(values)] if values else []


def _provenance(manifest: Described) -> str:
    made = manifest.provenance
    rows = [
        ["network", f"{made.network}, {made.parameters:,} parameters"],
        ["training data", made.training_data],
        ["initial weights", made.initial_weights or "random"],
        ["epochs", str(made.epochs)],
        ["data (SHA-256)", f"`{made.data_sha256}`"],
        ["split file (SHA-256)", f"`{made.split_sha256}`"],
        ["checkpoint (SHA-256)", f"`{made.checkpoint_sha256}`"],
        *([f"`{name}` (SHA-256)", f"`{digest}`"] for name, digest in manifest.files.items()),
    ]
    return table(["", ""], rows)


def _estimates(values: Mapping[str, Estimate]) -> str:
    return table(["measure", "value (95 % interval)"], [[_words(name), _cell(value)] for name, value in values.items()])


def _cell(value: Estimate | None) -> str:
    if value is None:
        return "not defined"
    interval = "" if value.low is None or value.high is None else f" ({value.low:.3f} to {value.high:.3f})"
    return f"{value.value:.3f}{interval}"


def _code(code: CodedConcept | None) -> str:
    return "none" if code is None else f"{code.scheme} {code.value} ({code.meaning})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
