"""A document as one HTML file, which needs no other and runs no script."""

from __future__ import annotations

from html import escape

from training.study.document import Block, Document, Heading, Picture, Table, Text

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; }
.notice { border-left: 4px solid #d9822b; padding: .3rem .8rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8886; text-align: left; vertical-align: top; }
td, tbody th { white-space: nowrap; }
thead th { border-bottom: 2px solid #888; }
figure { margin: 1rem 0; background: #fff; border-radius: 4px; }
figure svg { width: 100%; height: auto; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def web_page(document: Document) -> bytes:
    """The document in HTML, UTF-8; pictures are drawings (SVG) inside it."""
    body = "\n".join(_block(block) for block in document.blocks)
    title, notice = escape(document.title), escape(document.notice)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>{_STYLE}</style>\n</head>\n'
        f'<body>\n<main>\n<h1>{title}</h1>\n<p class="notice" role="note">{notice}</p>\n'
        f"{body}\n</main>\n</body>\n</html>\n"
    )
    return page.encode()


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Table(head, rows):
            return _table(head, rows)
        case Picture(_, description):
            drawing = block.render("svg").decode()
            drawing = drawing[drawing.index("<svg") :].replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
            return f'<figure role="img" aria-label="{escape(description)}">\n{drawing}</figure>'


def _table(head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="table"><table>\n'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )
