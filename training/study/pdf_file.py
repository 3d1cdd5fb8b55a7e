"""A document as PDF."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from training.study.document import Block, Document, Heading, Picture, Table, Text

if TYPE_CHECKING:
    from fpdf import FPDF

_SIZE, _SMALL = 9.5, 7.5  # points
_LINE = 4.6  # millimetres


def pdf_file(document: Document) -> bytes:
    """The document as PDF, A4; letters of any alphabet that DejaVu Sans has, which comes with Matplotlib."""
    import matplotlib
    from fpdf import FPDF

    notice = document.notice

    class Pages(FPDF):
        def footer(self) -> None:
            self.set_y(-12)
            self.set_font("DejaVu", size=_SMALL)
            self.cell(0, 6, f"{notice}  Page {self.page_no()}", align="C")

    pdf = Pages(format="A4")
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pdf.add_font("DejaVu", "", fonts / "DejaVuSans.ttf")
    pdf.add_font("DejaVu", "B", fonts / "DejaVuSans-Bold.ttf")
    pdf.set_title(document.title)
    pdf.set_lang("en")
    pdf.set_auto_page_break(auto=True, margin=16)
    pdf.add_page()
    _line(pdf, document.title, 16, bold=True)
    _line(pdf, notice, _SIZE, bold=True)
    for block in document.blocks:
        _block(pdf, block)
    return bytes(pdf.output())


def _block(pdf: FPDF, block: Block) -> None:
    match block:
        case Heading(text):
            if pdf.will_page_break(30):  # a heading is not left alone at the end of a page
                pdf.add_page()
            pdf.ln(3)
            pdf.start_section(text)
            _line(pdf, text, 12, bold=True)
        case Text(text):
            _line(pdf, text, _SIZE)
        case Table(head, rows):
            _table(pdf, head, rows)
        case Picture(_, description, _, height):
            size = pdf.epw * height / 7
            if pdf.will_page_break(size + 2):
                pdf.add_page()
            pdf.image(BytesIO(block.render("png")), w=pdf.epw, alt_text=description)
            pdf.ln(2)


def _line(pdf: FPDF, text: str, size: float, *, bold: bool = False) -> None:
    pdf.set_font("DejaVu", "B" if bold else "", size)
    pdf.multi_cell(0, _LINE * size / _SIZE, text, align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(1.5)


def _table(pdf: FPDF, head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    pdf.set_font("DejaVu", size=_SMALL)
    lengths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    widths = tuple(min(max(length + 2, 8), 36) for length in lengths)
    with pdf.table(col_widths=widths, text_align="LEFT", line_height=4, borders_layout="HORIZONTAL_LINES") as table:
        for row in (head, *rows):
            table.row(row)
    pdf.ln(2)
