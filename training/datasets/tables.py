"""A dataset's description as tables on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.datasets.describe import Description, Duplicates, SplitCheck

NAMED = 5  # faults shown by name


def print_description(description: Description, console: Console) -> None:
    """Print the counts, the duplicates and, where there is one, the split with its check."""
    console.print(_classes(description))
    console.print(_pixels(description))
    console.print(_duplicates(description.duplicates))
    for pair in description.duplicates.examples[:NAMED]:
        (first, second), (label, other) = pair.ids, pair.labels
        console.print(escape(f"  {first} ({label}) = {second} ({other})"), soft_wrap=True)
    if description.split is not None:
        print_split(description.split, console)


def print_split(split: SplitCheck, console: Console) -> None:
    """Print a split's counts by part and class, and what is wrong with it."""
    classes = sorted({name for part in split.parts for name in part.classes})
    table = _table("Split", "part", *classes, "images", "groups")
    for part in split.parts:
        row = [part.classes.get(name, 0) for name in classes]
        table.add_row(part.name, *map(str, row), str(part.images), str(part.groups))
    console.print(table)
    console.print(f"  left out between parts: {split.excluded} images; SHA-256 {split.digest}", soft_wrap=True)
    faults = {
        "groups in two parts": split.straddling_groups,
        "clusters of near duplicates in two parts": tuple(" = ".join(ids) for ids in split.straddling_clusters),
        "images in the split twice": split.repeated,
        "images of the split that the dataset lacks": split.missing,
        "images of the dataset that the split lacks": split.unassigned,
    }
    for what, names in faults.items():
        if names:
            some = escape(", ".join(names[:NAMED]))
            console.print(f"  [red]{len(names)} {what}[/red], first: {some}", soft_wrap=True)
    if split.sound:
        console.print("  [green]no group and no cluster of near duplicates lies in two parts[/green]")


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _classes(description: Description) -> Table:
    table = _table("Classes", "class", "images", "masks", "groups")
    for each in description.classes:
        table.add_row(escape(each.name), str(each.images), str(each.masks), str(each.groups))
    table.add_section()
    table.add_row("all", str(description.images), str(description.masks), str(description.groups))
    return table


def _pixels(description: Description) -> Table:
    table = _table("Images", "width x height", "images")
    for size in description.sizes:
        table.add_row(f"{size.width} x {size.height}", str(size.images))
    others = description.distinct_sizes - len(description.sizes)
    if others:
        rest = description.images - sum(size.images for size in description.sizes)
        table.add_row(f"{others} other sizes", str(rest))
    table.add_section()
    table.add_row("grey", str(description.grey))
    table.add_row("colour, read as grey", str(description.colour))
    return table


def _duplicates(found: Duplicates) -> Table:
    table = _table("Duplicates", "", "sets", "images")
    table.add_row("equal pixels", str(found.exact_sets), str(found.exact_images))
    table.add_row("near duplicates", str(found.clusters), str(found.cluster_images))
    table.add_row("largest set of near duplicates", "", str(found.largest))
    table.add_row("distinct images, near duplicates counted once", "", str(found.distinct))
    table.add_row("pairs of near duplicates with different labels", str(found.crossing), "")
    return table
