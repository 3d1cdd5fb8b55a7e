"""The figures of a reader study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.bootstrap import Estimate
from training.study.analysis import Analysis
from training.study.document import shown
from training.study.expected import Recovered
from training.study.mrmc import Difference

WITHOUT, WITH = "#7a7a7a", "#3b6ea5"
RATINGS = ("#b35806", "#f1a340", "#d8d8d8", "#998ec3", "#542788")  # differ in lightness too, for any eye and for print


def draw_accuracy(figure: Figure, analysis: Analysis) -> None:
    """Each reader's share correct in both arms, and the pooled one with its interval."""
    axes = figure.add_subplot()
    names = [result.reader for result in analysis.by_reader]
    for place, result in enumerate(analysis.by_reader):
        values = {arm: found.accuracy.value for arm, found in result.arms.items()}
        axes.plot(list(values.values()), [place] * len(values), color="#bbbbbb", linewidth=2, zorder=1)
        for arm, value in values.items():
            axes.scatter(value, place, color=WITH if arm == "with" else WITHOUT, zorder=2)
    both = analysis.pooled["accuracy"]
    for shift, value, colour, label in ((-0.12, both.without, WITHOUT, "without"), (0.12, both.with_, WITH, "with")):
        _bar(axes, value, len(names) + 0.4 + shift, colour, label)
    axes.set_yticks([*range(len(names)), len(names) + 0.4], [*names, "all readers"])
    axes.invert_yaxis()
    axes.set_xlabel("share correct (all readers: with 95 % interval)")
    axes.legend(title="explanation", loc="center left", bbox_to_anchor=(1.01, 0.5))


def draw_differences(figure: Figure, analysis: Analysis) -> None:
    """The pooled differences of all shares, with less without."""
    axes = figure.add_subplot()
    names = [name for name in analysis.pooled if name not in ("confidence", "seconds")]
    _forest(axes, names, [analysis.pooled[name].difference for name in names])
    axes.set_xlabel("with less without explanation, 95 % interval")


def draw_ratings(figure: Figure, analysis: Analysis) -> None:
    """Diverging bars: shares of the ratings, the middle of the neutral ones at zero."""
    axes = figure.add_subplot()
    names = [item.name for item in analysis.likert]
    shares = np.array([np.array(item.counts) / sum(item.counts) for item in analysis.likert]) * 100
    left = -(shares[:, 0] + shares[:, 1] + shares[:, 2] / 2)
    labels = ("1, disagree", "2", "3, neutral", "4", "5, agree")
    for rating, (colour, label) in enumerate(zip(RATINGS, labels, strict=True)):
        axes.barh(names, shares[:, rating], left=left, color=colour, label=label)
        left = left + shares[:, rating]
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("share of ratings (%)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def draw_reliance(figure: Figure, analysis: Analysis) -> None:
    """How often readers gave the model's wrong class, and how often they did not give its right one."""
    titles = {"over_reliance": "model wrong, followed", "under_reliance": "model right, not followed"}
    shown = [name for name in titles if name in analysis.pooled]
    axes = figure.add_subplot()
    for place, name in enumerate(shown):
        found = analysis.pooled[name]
        for shift, value, colour, label in (
            (-0.1, found.without, WITHOUT, "without"),
            (0.1, found.with_, WITH, "with"),
        ):
            _bar(axes, value, place + shift, colour, label if place == 0 else None)
    axes.set_yticks(range(len(shown)), [titles[name] for name in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of readings, 95 % interval")
    axes.legend(title="explanation", loc="center left", bbox_to_anchor=(1.01, 0.5))


def draw_times(figure: Figure, analysis: Analysis) -> None:
    """Each reader's median time per case in both arms."""
    axes = figure.add_subplot()
    names = [result.reader for result in analysis.by_reader]
    for place, result in enumerate(analysis.by_reader):
        values = [found.median_seconds for found in result.arms.values()]
        axes.plot(values, [place] * len(values), color="#bbbbbb", linewidth=2, zorder=1)
        for arm, found in result.arms.items():
            axes.scatter(found.median_seconds, place, color=WITH if arm == "with" else WITHOUT, zorder=2)
    for arm, colour in (("without", WITHOUT), ("with", WITH)):
        axes.scatter([], [], color=colour, label=arm)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("median seconds per case")
    axes.legend(title="explanation", loc="center left", bbox_to_anchor=(1.01, 0.5))


def draw_recovery(figure: Figure, rows: Sequence[Recovered]) -> None:
    """What was expected within each interval, the interval scaled to -1 to 1."""
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        middle, reach = (row.found.low + row.found.high) / 2, (row.found.high - row.found.low) / 2
        axes.plot([-1, 1], [place, place], color=WITH, linewidth=2)
        axes.scatter((row.expected - middle) / reach, place, color="black" if row.inside else RATINGS[0], zorder=2)
    axes.set_yticks(range(len(rows)), [row.parameter for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("expected value (dot) in the 95 % interval (line, scaled)")


def _forest(axes: Axes, names: Sequence[str], values: Sequence[Difference]) -> None:
    for place, value in enumerate(values):
        _bar(axes, value, place, WITH, None)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), [shown(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def _bar(axes: Axes, value: Estimate | Difference, place: float, colour: str, label: str | None) -> None:
    """A point and its interval."""
    axes.plot([value.low, value.high], [place, place], color=colour, linewidth=2)
    axes.scatter(value.value, place, color=colour, label=label, zorder=3)
