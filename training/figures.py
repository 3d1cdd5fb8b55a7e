"""The figures of a report, as PNG."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.files import write_atomically
from training.report import Report

BARS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "f2": "F2", "kappa": "kappa"}
_BLUE, _ORANGE, _GREY = "#3b6ea5", "#d9822b", "#888888"


def save_figures(report: Report, out: Path) -> tuple[str, ...]:
    """Draw all figures into `out`; returns their file names."""
    drawings: dict[str, Callable[[Axes, Report], None]] = {
        "metrics.png": draw_metrics,
        "correct.png": draw_correct,
        "confusion.png": draw_confusion,
        "reliability.png": draw_reliability,
    }
    for name, draw in drawings.items():
        figure = Figure(figsize=(5.6, 4.4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)  # without pyplot there is no window system and no global state
        draw(figure.add_subplot(), report)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        write_atomically(out / name, buffer.getvalue())
    return tuple(drawings)


def draw_metrics(axes: Axes, report: Report) -> None:
    """Bars of the main metrics with their 95 % intervals (the study's figure 5.1)."""
    names = [name for name in BARS if name in report.metrics]
    values = [report.metrics[name] for name in names]
    heights = np.array([v.value for v in values])
    below = np.maximum(heights - [v.low for v in values], 0)
    above = np.maximum([v.high for v in values] - heights, 0)
    labels = [BARS[name] for name in names]
    axes.bar(labels, heights, yerr=np.stack([below, above]), capsize=4, color=_BLUE)
    for place, (height, top) in enumerate(zip(heights, above, strict=True)):
        axes.annotate(f"{height:.3f}", (place, height + top), ha="center", va="bottom", fontsize=8)
    axes.set_ylim(min(0.0, float((heights - below).min(initial=0.0))), 1.08)
    axes.set_title(f"{report.network}, {report.part} part, 95 % intervals")


def draw_correct(axes: Axes, report: Report) -> None:
    """Pie of images classified right and wrong (the study's figure 5.2)."""
    right = int(np.trace(np.array(report.confusion)))
    wrong = report.images - right
    labels = [f"correct\n{right} ({right / report.images:.1%})", f"wrong\n{wrong} ({wrong / report.images:.1%})"]
    axes.pie([right, wrong], labels=labels, colors=[_BLUE, _ORANGE], startangle=90)
    axes.set_title(f"{report.images} images of the {report.part} part")


def draw_confusion(axes: Axes, report: Report) -> None:
    """Confusion matrix: counts, coloured by the share of the label."""
    matrix = np.array(report.confusion)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(report.classes)), report.classes, rotation=20)
    axes.set_yticks(range(len(report.classes)), report.classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")


def draw_reliability(axes: Axes, report: Report) -> None:
    """Reliability diagram before and after the temperature; the size of a dot shows how many images it stands for."""
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfect")
    rows = (
        ("before", report.reliability_before, _ORANGE, 1.0),
        ("after", report.reliability_after, _BLUE, report.temperature),
    )
    for title, bins, colour, temperature in rows:
        sizes = [10 + 150 * b.images / report.images for b in bins]
        confidence, accuracy = [b.confidence for b in bins], [b.accuracy for b in bins]
        error = report.metrics.get(f"ece_{title}")
        label = f"temperature {temperature:.2f}" + ("" if error is None else f", ECE {error.value:.3f}")
        axes.plot(confidence, accuracy, color=colour, linewidth=1)
        axes.scatter(confidence, accuracy, s=sizes, color=colour, alpha=0.7, label=label)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="mean probability of the predicted class", ylabel="share correct")
    axes.legend(loc="upper left", fontsize=8)
