"""The plots of a load test's report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.objectives import GOOD
from loadtests.samples import Floats, Sample, by_operation, quantile
from training.study.document import Picture

# Okabe and Ito's colours, which colour-blind people tell apart
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#555555")
_SHARES = {0.5: "p50", 0.95: "p95", 0.99: "p99"}
_COLUMNS = 3


def pictures(samples: Sequence[Sample], server: dict[str, Any]) -> tuple[Picture, ...]:
    """All plots: of the samples, and of `scrape.series_of` the readings."""
    start = min((sample.at for sample in samples), default=0.0)
    rows = -(-len(by_operation(samples)) // _COLUMNS)
    at = np.array(server["at"]) - start
    named: dict[str, tuple[str, Callable[[Figure], None], float]] = {
        "latency": ("Latency of all requests over time: 50, 95 and 99 %.", partial(_latency, samples, start), 3.2),
        "operations": (
            "Latency of every operation over time: 50, 95 and 99 %.",
            partial(_operations, samples, start),
            0.6 + 1.6 * rows,
        ),
        "throughput": (
            "Images answered a second, and requests shed and wrong, over time.",
            partial(_throughput, samples, start),
            3.2,
        ),
        "batches": ("Images in a forward pass, on average, over time.", partial(_batches, at, server), 2.6),
        "stages": ("Requests in each stage of the service, on average, over time.", partial(_stages, at, server), 3.2),
        "cpu": ("Processor cores that the server used over time.", partial(_line, at, server["cpu"], "cores"), 2.6),
        "memory": ("Memory of the server over time.", partial(_line, at, server["rss_mib"], "MiB"), 2.6),
    }
    return tuple(Picture(name, text, draw, height) for name, (text, draw, height) in named.items())


def windows(samples: Sequence[Sample], start: float) -> list[tuple[float, list[Sample]]]:
    """The samples by windows of at least 2 s, at most 40 of them: each with the middle of its time from `start`."""
    end = max((sample.at for sample in samples), default=start) - start
    length = max(2.0, end / 40)
    found: list[tuple[float, list[Sample]]] = [((n + 0.5) * length, []) for n in range(int(end / length) + 1)]
    for sample in samples:
        found[int((sample.at - start) / length)][1].append(sample)
    return found


def _latency(samples: Sequence[Sample], start: float, figure: Figure) -> None:
    axes = figure.add_subplot()
    _percentiles(axes, samples, start)
    axes.legend(loc="upper right", fontsize=8, ncols=3)
    axes.set(xlabel="seconds", ylabel="ms")


def _operations(samples: Sequence[Sample], start: float, figure: Figure) -> None:
    named = by_operation(samples)
    if not named:
        _nothing(figure.add_subplot())
        return
    grid = figure.subplots(-(-len(named) // _COLUMNS), _COLUMNS, sharex=True, squeeze=False)
    for axes, (name, own) in zip(grid.flat, named.items(), strict=False):
        _percentiles(axes, own, start)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(named) :]:
        axes.set_axis_off()
    figure.supxlabel("seconds", fontsize=8)
    figure.supylabel("ms", fontsize=8)


def _percentiles(axes: Axes, samples: Sequence[Sample], start: float) -> None:
    filled = [(at, [s.ms for s in own if s.outcome in GOOD]) for at, own in windows(samples, start)]
    for colour, (share, label) in zip(_COLOURS, _SHARES.items(), strict=False):
        values = [quantile(ms, share) for _, ms in filled]
        axes.plot([at for at, _ in filled], values, ".-", color=colour, label=label, linewidth=1, markersize=4)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


def _throughput(samples: Sequence[Sample], start: float, figure: Figure) -> None:
    axes, found = figure.add_subplot(), windows(samples, start)
    at = [middle for middle, _ in found]
    length = at[1] - at[0] if len(at) > 1 else 2.0
    axes.plot(
        at, [sum(s.images for s in own) / length for _, own in found], color=_COLOURS[0], label="images/s answered"
    )
    for colour, outcome in ((_COLOURS[1], "shed"), (_COLOURS[5], "wrong")):
        rate = [sum(s.outcome == outcome for s in own) / length for _, own in found]
        axes.plot(at, rate, color=colour, label=f"requests/s {outcome}")
    axes.set(xlabel="seconds", ylabel="a second", ylim=(0, None))
    axes.legend(loc="upper right", fontsize=8, ncols=3)
    axes.grid(alpha=0.3)


def _batches(at: Floats, server: dict[str, Any], figure: Figure) -> None:
    axes = figure.add_subplot()
    values = np.array(server["batch"], np.float64)  # None becomes NaN
    if not np.isfinite(values).any():
        _nothing(axes)
        return
    axes.plot(at, values, ".", color=_COLOURS[0])
    axes.set(xlabel="seconds", ylabel="images", ylim=(0, None))
    axes.grid(alpha=0.3)


def _stages(at: Floats, server: dict[str, Any], figure: Figure) -> None:
    axes, stages = figure.add_subplot(), server["stages"]
    if not len(at) or not stages:
        _nothing(axes)
        return
    heights = [np.nan_to_num(np.array(values, np.float64)) for values in stages.values()]
    axes.stackplot(at, heights, labels=list(stages), colors=_COLOURS)
    axes.set(xlabel="seconds", ylabel="requests")
    axes.legend(loc="upper right", fontsize=8, ncols=3)


def _line(at: Floats, values: Sequence[float | None], unit: str, figure: Figure) -> None:
    axes, heights = figure.add_subplot(), np.array(values, np.float64)
    if not np.isfinite(heights).any():
        _nothing(axes)
        return
    axes.plot(at, heights, color=_COLOURS[0])
    axes.set(xlabel="seconds", ylabel=unit, ylim=(0, None))
    axes.grid(alpha=0.3)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured: no such metrics, or a server on another machine", ha="center", va="center")
    axes.set_axis_off()
