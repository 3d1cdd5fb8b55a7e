"""Owen values of nested regions by halving: the algorithm behind `shap`.

The players are the leaves of a binary tree of regions; the coalition structure at every level is the pair of halves
(Owen 1977; Lundberg's partition explainer in `shap` is the same game). Let phi(R) be the value of a region, whole; the
root's is f(everything) - f(nothing). For a region split into L and R, and a random context C (every region beside the
path from the root is shown or hidden with probability 1/2, independently),

    phi(L) + phi(R) = phi(L + R)                      efficiency
    phi(L) - phi(R) = E_C [ f(C + L) - f(C + R) ]     what is left of the two marginal contributions

so one number a split is all that has to be estimated, additivity holds exactly whatever the budget, and a value's
variance is a quarter of its parent's plus a quarter of the difference's. Contexts are enumerated where they are few
(then the value is exact) and otherwise drawn without replacement in pairs of opposites. The tree grows where the
largest values are: an unsplit region spreads its value evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.types import Float, Stopped

Cells = NDArray[np.bool_]
Real = NDArray[np.float64]
Splitter = Callable[[Cells], tuple[Cells, Cells] | None]

_FIRST = 4  # contexts a split is given at first; all of them where there are no more
_MORE = 8  # contexts a refinement adds
_ROUND = 64  # evaluations asked for at once


@dataclass(slots=True)
class Node:
    """A region. `beside` are the regions beside the path from the root, nearest last; `value` is phi, `[T]`."""

    cells: Cells
    beside: tuple[Cells, ...]
    value: Real
    variance: Real
    halves: tuple[Node, Node] | None = None
    drawn: list[int] = field(default_factory=list[int])
    differences: list[Real] = field(default_factory=list["Real"])
    whole: bool = False  # cannot be split

    @property
    def contexts(self) -> int:
        """How many there are."""
        return 1 << len(self.beside)

    @property
    def enumerated(self) -> bool:
        """Whether all of them were evaluated."""
        return len(self.drawn) >= self.contexts

    def difference(self) -> tuple[Real, Real]:
        """The mean of phi(L) - phi(R) and the variance of that mean, `[T]` each.

        The variance is that of independent draws: opposites vary against each other, so it is rather too large.
        """
        values = np.stack(self.differences)
        mean = values.mean(axis=0)
        if self.enumerated:
            return mean, np.zeros_like(mean)
        left = 1 - len(self.drawn) / self.contexts  # drawn without replacement
        return mean, values.var(axis=0, ddof=1) / len(values) * left


@dataclass(frozen=True, slots=True)
class Owen:
    """The players found: `regions` bool `[P, h, w]`, `values` and `half_widths` (95 %) `[P, T]`, and how it ended."""

    regions: Cells
    values: Real
    half_widths: Real
    evaluations: int
    stopped: Stopped


def owen_values(
    root: Cells,
    split: Splitter,
    total: Real,
    *,
    players: int,
    budget: int,
    tolerance: float,
    expired: Callable[[], bool],
    random: np.random.Generator,
) -> Generator[Cells, Float, Owen]:
    """Estimate the values; a generator that yields the coalitions that it wants evaluated.

    Args:
        root: bool `[h, w]`, everything that may be hidden.
        split: halves a region, or says that it cannot be split.
        total: f(everything) - f(nothing), `[T]`.
        players: most regions.
        budget: most evaluations.
        tolerance: contexts are added until every half-width is below this share of the largest value.
        expired: whether to end with what there is.
        random: draws contexts.

    Yields:
        bool `[M, h, w]`: what each coalition shows. To be sent: the scores float `[M, T]` of these, or of the first
        ones where the deadline has passed: what is not wholly answered is left out.
    """
    tree = Node(root, (), total.astype(np.float64), np.zeros_like(total, np.float64))
    spent = 0
    stopped: Stopped = "complete"
    while True:
        if expired():
            stopped = "deadline"
            break
        plan = list(_plan(tree, split, players, budget - spent, random)) or list(
            _refinement(tree, tolerance, budget - spent, random)
        )
        if not plan:
            stopped = _reason(tree, players, tolerance)
            break
        shown = np.concatenate([_coalitions(node, contexts) for node, contexts in plan])
        scores = np.asarray((yield shown), np.float64)
        spent += len(scores)
        _take(plan, scores)
        _settle(tree)
    leaves = list(_leaves(tree))
    widths = np.stack([_quantile(leaf) * np.sqrt(leaf.variance) for leaf in leaves])
    return Owen(np.stack([x.cells for x in leaves]), np.stack([x.value for x in leaves]), widths, spent, stopped)


def _plan(
    tree: Node, split: Splitter, players: int, left: int, random: np.random.Generator
) -> Iterator[tuple[Node, list[int]]]:
    """The next splits: leaves of the largest value first, each with its first contexts, one round's worth."""
    leaves = list(_leaves(tree))
    spare = players - len(leaves)
    asked = 0
    for leaf in sorted(leaves, key=lambda x: -float(np.abs(x.value).max())):
        if spare < 1 or asked >= _ROUND:
            return
        cost = 2 * min(leaf.contexts, _FIRST)
        if leaf.whole or asked + cost > left:
            continue
        halves = split(leaf.cells)
        if halves is None:
            leaf.whole = True
            continue
        a, b = halves
        zero = np.zeros_like(leaf.value)
        leaf.halves = (Node(a, (*leaf.beside, b), zero, zero), Node(b, (*leaf.beside, a), zero, zero))
        asked += cost
        spare -= 1
        yield leaf, _draw(leaf, _FIRST, random)


def _refinement(
    tree: Node, tolerance: float, left: int, random: np.random.Generator
) -> Iterator[tuple[Node, list[int]]]:
    """More contexts for the splits that the widest interval owes most to."""
    if _tight(tree, tolerance):
        return
    uncertain = sorted(
        (node for node in _inner(tree) if not node.enumerated), key=lambda x: -float(x.difference()[1].max())
    )
    asked = 0
    for node in uncertain:
        cost = 2 * min(_MORE, node.contexts - len(node.drawn))
        if asked >= _ROUND or asked + cost > left:
            return
        asked += cost
        yield node, _draw(node, _MORE, random)


def _draw(node: Node, count: int, random: np.random.Generator) -> list[int]:
    """New contexts as bits over `beside`: all where they are few, else pairs of opposites without replacement."""
    last, seen, drawn = node.contexts - 1, set(node.drawn), list[int]()
    if node.contexts == 1:
        return [0]
    if node.contexts - len(seen) <= count:  # few are left: take them, in pairs
        return [bits for low in range(node.contexts // 2) if low not in seen for bits in (low, last - low)]
    while len(drawn) < count:
        bits = int.from_bytes(random.bytes(-(-len(node.beside) // 8))) & last
        if bits not in seen:
            seen |= {bits, last - bits}
            drawn += [bits, last - bits]
    return drawn


def _coalitions(node: Node, contexts: list[int]) -> Cells:
    """Bool `[2 C, h, w]`: each context with the first half, then each with the second."""
    assert node.halves is not None  # noqa: S101 - only split nodes are planned
    shape = node.cells.shape
    beside = (
        np.stack(node.beside).reshape(len(node.beside), -1) if node.beside else np.zeros((0, node.cells.size), bool)
    )
    bits = (np.array(contexts, object)[:, None] >> np.arange(len(node.beside))[None]).astype(np.int64) & 1
    base = (bits.astype(np.float32) @ beside.astype(np.float32) > 0).reshape(len(contexts), *shape)
    return np.concatenate([base | node.halves[0].cells, base | node.halves[1].cells])


def _take(plan: list[tuple[Node, list[int]]], scores: Real) -> None:
    """Add what was answered; a node that was split for what was not is whole again."""
    start = 0
    for node, contexts in plan:
        rows = scores[start : start + 2 * len(contexts)]
        start += 2 * len(contexts)
        if start <= len(scores):
            node.drawn += contexts
            node.differences += list(rows[: len(contexts)] - rows[len(contexts) :])
        elif not node.drawn:
            node.halves = None


def _settle(tree: Node) -> None:
    """Values and variances from the root downwards."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node.halves is None:
            continue
        mean, variance = node.difference()
        first, second = node.halves
        first.value, second.value = (node.value + mean) / 2, (node.value - mean) / 2
        first.variance = second.variance = (node.variance + variance) / 4
        waiting += node.halves


def _leaves(node: Node) -> Iterator[Node]:
    if node.halves is None:
        yield node
    else:
        for half in node.halves:
            yield from _leaves(half)


def _inner(node: Node) -> Iterator[Node]:
    if node.halves is not None:
        yield node
        for half in node.halves:
            yield from _inner(half)


def _quantile(leaf: Node) -> float:
    """Student's t at 97.5 % for the fewest contexts behind a split (expansion of Cornish and Fisher)."""
    z, degrees = 1.959964, _FIRST - 1
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _tight(tree: Node, tolerance: float) -> bool:
    leaves = list(_leaves(tree))
    largest = np.max([np.abs(leaf.value) for leaf in leaves], axis=0)
    widest = np.max([_quantile(leaf) * np.sqrt(leaf.variance) for leaf in leaves], axis=0)
    return bool((widest <= tolerance * largest + 1e-12).all())


def _reason(tree: Node, players: int, tolerance: float) -> Stopped:
    leaves = list(_leaves(tree))
    if len(leaves) < players and not all(leaf.whole for leaf in leaves):
        return "budget"
    if all(node.enumerated for node in _inner(tree)):
        return "complete"
    return "converged" if _tight(tree, tolerance) else "budget"
