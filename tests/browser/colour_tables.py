"""Write the page's colour maps from matplotlib's: `python -m tests.browser.colour_tables`.

viridis, cividis (Nuñez et al., PLOS ONE 2018) and inferno are perceptually uniform, berlin (Crameri, Zenodo 2018) is
diverging with a dark middle that lets an image through; jet is there because it is what older papers show.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

TABLE = Path(__file__).resolve().parents[2] / "service" / "page" / "colours.js"
MAPS = {
    "inferno": ("Inferno", False),
    "viridis": ("Viridis", False),
    "cividis": ("Cividis (colour-blind safe)", False),
    "berlin": ("Berlin (for and against)", True),
    "jet": ("Jet (classical)", False),
}
HEAD = """\
/** Colour maps, 256 colours each. Made by `python -m tests.browser.colour_tables` from matplotlib's; do not edit. */

/** @typedef {{title: string, diverging: boolean, table: Uint8Array}} Colours table: red, green, blue of 256 colours */

const decode = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));

/** @type {Object<string, Colours>} */
export const COLOURS = {
"""


def source() -> str:
    """The JavaScript module."""
    rows: list[str] = []
    for name, (title, diverging) in MAPS.items():
        table = np.rint(mpl.colormaps[name](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes().hex()
        lines = " +\n".join(f'    "{table[at : at + 108]}"' for at in range(0, len(table), 108))
        flag = str(diverging).lower()
        rows.append(f'  {name}: {{ title: "{title}", diverging: {flag}, table: decode(\n{lines},\n  ) }},\n')
    return HEAD + "".join(rows) + "};\n"


if __name__ == "__main__":
    TABLE.write_text(source())
