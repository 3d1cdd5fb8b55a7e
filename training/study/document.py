"""A report as blocks, which `web_page` and `pdf_file` show; and how its numbers are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.bootstrap import Estimate
from training.study.mrmc import Difference

MISSING = "not defined"


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Cells under a head; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure, `height` in inches at a width of 7; `description` stands for it where it cannot be seen."""

    name: str
    description: str
    draw: Callable[[Figure], None]
    height: float = 3.2

    def render(self, file_format: str) -> bytes:
        """The picture as `svg` or `png`; the same bytes each time."""
        figure = Figure(figsize=(7, self.height), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)  # without pyplot there is no window system and no global state
        self.draw(figure)
        buffer = BytesIO()
        metadata = {"Date": None, "Creator": None} if file_format == "svg" else {"Software": None}
        with rc_context({"svg.hashsalt": self.name, "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
            figure.savefig(buffer, format=file_format, metadata=metadata)
        return buffer.getvalue()


Block = Heading | Text | Table | Picture


@dataclass(frozen=True, slots=True)
class Document:
    """A titled sequence of blocks; the `notice` stands on top and on every page."""

    title: str
    notice: str
    blocks: tuple[Block, ...]


def shown(figure: str) -> str:
    """The name of a figure as people write it."""
    return "AUROC" if figure == "auroc" else figure.replace("_", "-")


def interval(value: Estimate | Difference | None, digits: int = 3) -> str:
    """A value with its 95 % interval."""
    if value is None:
        return MISSING
    return f"{value.value:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def p_value(p: float | None) -> str:
    """Three digits, never 0."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
