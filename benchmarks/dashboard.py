"""The provisioned Grafana dashboard as a picture, drawn from a running Prometheus by this script instead of Grafana.

    python -m benchmarks.dashboard http://127.0.0.1:9090 docs/images/dashboard.png [--minutes 10]

Every expression of `deploy/grafana/dashboards/radiolucent.json` is asked of the HTTP API of Prometheus (`query_range`);
panels lie where the dashboard puts them. `python -m benchmarks.monitored` starts Prometheus, the service and a load.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

from training.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "radiolucent.json"
_COLUMNS, _INCHES, _NOTICE = 24, 0.78, "drawn by benchmarks/dashboard.py from Prometheus, not by Grafana"
_MOST = 9  # lines in a legend


@dataclass(frozen=True, slots=True)
class Target:
    """One expression of a panel, Grafana's variables replaced; `legend` names its series by their labels."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: `at` is x, y, width and height in the dashboard's grid; `kind` is row, stat or timeseries."""

    title: str
    kind: str
    unit: str
    at: tuple[int, int, int, int]
    targets: tuple[Target, ...]
    low: float | None
    high: float | None
    stacked: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One series: seconds since the epoch, and values."""

    name: str
    times: list[float]
    values: list[float]


def read_panels(path: Path = DASHBOARD, *, rate_interval: str = "30s") -> list[Panel]:
    """The panels of a dashboard; `rate_interval` is what Grafana would choose for `$__rate_interval`."""
    return [_panel(each, rate_interval) for each in json.loads(path.read_text())["panels"]]


def _panel(raw: dict[str, Any], rate_interval: str) -> Panel:
    grid, defaults = raw["gridPos"], raw.get("fieldConfig", {}).get("defaults", {})
    targets = tuple(
        Target(re.sub(r"\$(model|method)", ".*", each["expr"].replace("$__rate_interval", rate_interval)), legend)
        for each in raw.get("targets", [])
        for legend in [each["legendFormat"]]
    )
    return Panel(
        title=raw["title"],
        kind=raw["type"],
        unit=defaults.get("unit", "none"),
        at=(grid["x"], grid["y"], grid["w"], grid["h"]),
        targets=targets,
        low=defaults.get("min"),
        high=defaults.get("max"),
        stacked="stacking" in defaults.get("custom", {}),
    )


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend with `{{label}}` replaced, as Grafana does it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()


def asked(url: str, start: float, end: float, step: float) -> Callable[[Target], list[Line]]:
    """A function that asks Prometheus for a target's series; values that are not numbers are left out."""

    def ask(target: Target) -> list[Line]:
        query = urlencode({"query": target.expression, "start": start, "end": end, "step": step})
        with urlopen(f"{url.rstrip('/')}/api/v1/query_range?{query}", timeout=60) as answer:  # noqa: S310
            found = json.load(answer)["data"]["result"]
        lines: list[Line] = []
        for series in found:
            points = [(float(at), float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf")]
            if points:
                name = named(target.legend, series["metric"])
                lines.append(Line(name, [at for at, _ in points], [value for _, value in points]))
        return lines

    return ask


def draw(panels: Sequence[Panel], ask: Callable[[Target], list[Line]], title: str) -> Figure:
    """All panels in one figure."""
    from matplotlib.figure import Figure

    rows = max(y + h for _, y, _, h in (panel.at for panel in panels)) + 1
    figure = Figure(figsize=(_COLUMNS * _INCHES, rows * _INCHES * 0.5), facecolor="#f4f5f5")
    figure.text(0.008, 1 - 0.5 / rows, title, fontsize=15, weight="bold", va="center")
    figure.text(0.992, 1 - 0.5 / rows, _NOTICE, fontsize=10, color="#666666", va="center", ha="right")
    for panel in panels:
        x, y, w, h = panel.at
        left, bottom, width, height = x / _COLUMNS, 1 - (y + 1 + h) / rows, w / _COLUMNS, h / rows
        if panel.kind == "row":
            figure.text(left + 0.008, bottom + height / 2, panel.title, fontsize=12, weight="bold", va="center")
            continue
        _frame(figure, left, bottom, width, height)
        lines = [line for target in panel.targets for line in ask(target)]
        figure.text(left + 0.007, bottom + height - 0.32 / rows, panel.title, fontsize=9.5, weight="bold", va="top")
        if panel.kind == "stat" or not lines:
            shown = f"{_number(lines[-1].values[-1], panel.unit)}" if lines else "no data"
            size = 26 if lines else 12
            colour = "#1f60c4" if lines else "#999999"
            middle = bottom + height * 0.42
            figure.text(left + width / 2, middle, shown, fontsize=size, color=colour, ha="center", va="center")
            continue
        legend = bottom + (0.35 + 0.33 * min(len(lines), _MOST)) / rows
        box = (left + 0.032, legend + 0.6 / rows, width - 0.042, bottom + height - legend - 1.45 / rows)
        axes = figure.add_axes(box)
        _plot(axes, panel, lines)
        _legend(axes, panel, lines, (left + 0.008, legend))
    return figure


def _frame(figure: Figure, left: float, bottom: float, width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    gap = 0.0025
    figure.add_artist(
        Rectangle(
            (left + gap, bottom + gap / 2),
            width - 2 * gap,
            height - gap,
            transform=figure.transFigure,
            facecolor="white",
            edgecolor="#d8d9da",
            linewidth=0.8,
            zorder=-1,
        )
    )


def _plot(axes: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    start = min(line.times[0] for line in lines)
    lines = sorted(lines, key=lambda line: -line.values[-1])
    if panel.stacked:
        times = sorted({at for line in lines for at in line.times})
        rows = [[dict(zip(line.times, line.values, strict=True)).get(at, 0.0) for at in times] for line in lines]
        minutes = [(at - start) / 60 for at in times]
        axes.stackplot(minutes, *rows, labels=[line.name for line in lines], alpha=0.7)
    else:
        for line in lines:
            style = "o" if len(line.times) == 1 else "-"
            axes.plot([(at - start) / 60 for at in line.times], line.values, style, label=line.name, lw=1.4, ms=3)
    axes.set_ylim(panel.low, panel.high)
    axes.grid(color="#eeeeee")
    axes.tick_params(labelsize=7, length=2)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, panel.unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(axes: Axes, panel: Panel, lines: Sequence[Line], corner: tuple[float, float]) -> None:
    """Names with the last values, below the upper left `corner` in the figure."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) > _MOST:
        names[_MOST - 1] = f"and {len(names) - _MOST + 1} more"
    last = {line.name: line.values[-1] for line in lines}
    shown = [f"{name}   {_number(last[name], panel.unit)}" if name in last else name for name in names[:_MOST]]
    axes.legend(
        handles[:_MOST],
        shown,
        loc="upper left",
        bbox_to_anchor=corner,
        bbox_transform=axes.figure.transFigure,
        fontsize=7,
        frameon=False,
        labelspacing=0.25,
        handlelength=1.2,
        borderaxespad=0,
    )


def _number(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
    return f"{value:.3g}/s" if unit == "reqps" else f"{value:.3g}"


def save(url: str, out: Path, minutes: float) -> None:
    """Draw the last minutes of what a Prometheus at `url` holds."""
    end = time.time()
    ask = asked(url, end - 60 * minutes, end, max(2.0, minutes / 5))
    title = json.loads(DASHBOARD.read_text())["title"]
    figure = draw(read_panels(), ask, title)
    picture = BytesIO()
    figure.savefig(picture, dpi=75, format="png")
    write_atomically(out, picture.getvalue())


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("prometheus", help="its address")
    made.add_argument("out", type=Path, help="PNG")
    made.add_argument("--minutes", type=float, default=10.0, help="default: %(default)s")
    options = made.parse_args(arguments)
    save(options.prometheus, options.out, options.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
