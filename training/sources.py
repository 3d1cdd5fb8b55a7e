"""Does the answer hold on other sources, and does it follow the lesion there? Figures by where an image comes from.

A network that tells slices with a tumour from others by scanner, sequence or height in the head does so between
patients. So slices of one patient are compared with each other, too: the same scanner, the same sequence and, for
`auroc_within_level`, about the same height. Whether the maps mark the lesion, and whether a slice is still called once
the lesion is painted over, is asked of every source by itself.

All functions work on arrays with a row for each image. A score is the logarithm of the odds of any finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from skimage.restoration import inpaint_biharmonic
from tqdm import tqdm

from service.types import Float, Grey8
from training.bootstrap import Array, Estimate, Resamples, draw
from training.datasets.prepared import Prepared
from training.findings import finding_called
from training.localisation import cell_precision, centre_map, peak_inside, random_map, share_inside
from training.metrics import auroc
from training.report import CallRule, SourceReport, SourceRow
from training.shortcut import patch_elsewhere, widened

Flags = NDArray[np.bool_]
LEVELS_APART = 0.12  # of the volume's height: slices nearer than this are of one level
LARGE = 0.01  # share of the input above which a lesion is large
SENSITIVITY = 0.90  # of large lesions, at the rule LARGE_LESIONS
LARGE_LESIONS = "large_lesions"
SIZES = {"under 0.3 %": (1e-9, 0.003), "0.3 to 1 %": (0.003, 0.01), "1 to 3 %": (0.01, 0.03), "over 3 %": (0.03, 1.01)}
HEIGHTS = {"lower third": (0.0, 1 / 3), "middle third": (1 / 3, 2 / 3), "upper third": (2 / 3, 1.01)}
PAINTED = ("navier_stokes", "biharmonic", "control")
_RANDOM_MAPS = 8  # for each image
_BELOW_ONE = float(np.nextafter(1, 0))


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network says of images: logits `[N, K]`, maps `[N, K, h, w]` and the numbers of the healthy classes.

    The logits are divided by the temperature.
    """

    logits: NDArray[np.floating]
    maps: Float
    healthy: NDArray[np.int64]

    @property
    def scores(self) -> Array:
        """Scores `[N]`."""
        return scores(self.logits, self.healthy)


def scores(logits: NDArray[np.floating], healthy: NDArray[np.int64]) -> Array:
    """Logarithm of the odds of any class that is not healthy, `[N]`; it does not saturate as a probability does."""
    wide = logits.astype(np.float64)
    ill, well = np.delete(wide, healthy, axis=1), wide[:, healthy]
    return np.logaddexp.reduce(ill, axis=1) - np.logaddexp.reduce(well, axis=1)


def lesion_shares(data: Prepared) -> Array:
    """Share of the input inside the outline, `[N]`; NaN where there is no outline."""
    shares = [float((np.asarray(mask) > 127).mean()) for mask in data.masks]
    return np.where(data.has_mask, np.array(shares, np.float64), np.nan)


def large_lesion_rule(known: Array, shares: Array, kinds: Sequence[str]) -> CallRule | None:
    """Choose the highest threshold that finds 90 % of the large lesions of the validation part.

    Each kind counts alike, however many images it has. The threshold lies halfway between the lowest score that is
    still called and the next below it.

    Args:
        known: scores of its images.
        shares: their lesions' shares of the input, NaN where there is none.
        kinds: source and sequence of each, say.

    Returns:
        None where there is no large lesion.
    """
    large = np.flatnonzero(shares > LARGE)
    if not len(large):
        return None
    _, kind, sizes = np.unique(np.asarray(kinds)[large], return_inverse=True, return_counts=True)
    order = np.argsort(known[large], kind="stable")
    missed = np.cumsum(1 / (len(sizes) * sizes[kind[order]]))  # with a threshold above each
    found = np.flatnonzero(missed > 1 - SENSITIVITY + 1e-9)
    lowest = float(known[large][order[found[0]]])  # the lowest score that is still called
    below = known[known < lowest]
    threshold = (lowest + float(below.max())) / 2 if len(below) else lowest - 1
    why = (
        f"sensitivity of {SENSITIVITY} for lesions over {LARGE:.0%} of the input on the validation part, every source "
        "and sequence alike"
    )
    return CallRule(name=LARGE_LESIONS, threshold=float(expit(threshold)), chosen_by=why)


def calls(logits: NDArray[np.floating], healthy: NDArray[np.int64], rules: Sequence[CallRule]) -> dict[str, Flags]:
    """Whether each image is called under each rule, bool `[N]` by the rule's name."""
    score = scores(logits, healthy)
    return {
        rule.name: finding_called(np.asarray(logits, np.float64), healthy)
        if rule.threshold is None
        else score >= float(logit(min(rule.threshold, _BELOW_ONE)))
        for rule in rules
    }


def within_patients(
    score: Array,
    present: Flags,
    patients: Sequence[str],
    sequences: Sequence[str],
    levels: Array | None = None,
    apart: float = LEVELS_APART,
) -> dict[str, float]:
    """Area under the ROC curve within each patient: the share of pairs in the right order, ties counting half.

    A pair is an image with a finding and one without, of one patient and one sequence. With `levels`, their levels
    are known and differ by less than `apart`.

    Returns:
        The areas of the patients who have a pair, by patient.
    """
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(patients, sequences, strict=True)):
        members[key].append(row)
    won: dict[str, float] = defaultdict(float)
    pairs: dict[str, int] = defaultdict(int)
    for (patient, _), rows in members.items():
        ill, well = (np.array([row for row in rows if present[row] == wanted], np.int64) for wanted in (True, False))
        above, below = score[ill][:, None], score[well][None]
        order = (above > below) + 0.5 * (above == below)
        counted = np.ones(order.shape, np.bool_)
        if levels is not None:
            counted = np.abs(levels[ill][:, None] - levels[well][None]) < apart  # never so for an unknown one
        won[patient] += float(order[counted].sum())
        pairs[patient] += int(counted.sum())
    return {patient: won[patient] / count for patient, count in pairs.items() if count}


def over_patients(areas: Mapping[str, float], patients: Sequence[str], drawn: Resamples) -> Estimate | None:
    """Mean of the patients' values, with its interval; None where there is no patient.

    Args:
        areas: value by patient.
        patients: patient of each of the N images that `drawn` resamples.
        drawn: resamples of groups, each of which holds whole patients.
    """
    if not areas:
        return None
    group = {patient: number for patient, number in zip(patients, drawn.group.tolist(), strict=True)}
    rows = Resamples(np.array([group[patient] for patient in areas], np.int64), drawn.counts)
    return rows.ratio(np.array(list(areas.values())))


def strata(data: Prepared, shares: Array) -> Iterator[tuple[str, str, Flags]]:
    """The sets of images that figures are given for: by what, the name, and bool `[N]`.

    What is known of no image is no stratum. Strata of lesion sizes hold no images without a lesion.
    """
    sequences = [f"{s}, {w}" if w else "" for s, w in zip(data.sources, data.weightings, strict=True)]
    skulls = [{None: "", True: "stripped", False: "there"}[value] for value in data.skull_stripped]
    columns: dict[str, Sequence[str]] = {
        "source": data.sources,
        "source and sequence": sequences,
        "sequence": data.weightings,
        "plane": data.planes,
        "skull": skulls,
    }
    for by, values in columns.items():
        for name in sorted(set(values) - {""}):
            yield by, name, np.array([value == name for value in values], np.bool_)
    for by, values, ranges in (("level", data.levels, HEIGHTS), ("lesion size", shares, SIZES)):
        for name, (low, high) in ranges.items():
            chosen = (values >= low) & (values < high)
            if chosen.any():
                yield by, name, chosen


def measure(
    data: Prepared,
    answers: Answers,
    groups: NDArray[np.int64],
    rules: Sequence[CallRule],
    answer: Callable[[Grey8, str], NDArray[np.floating]],
    *,
    resamples: int,
    seed: int,
) -> SourceReport:
    """Measure by source, sequence, plane, skull, level and lesion size.

    Args:
        data: the images of a part.
        answers: the network's for them.
        groups: int64 `[N]`, groups that resamples are drawn of.
        rules: ways to call a finding.
        answer: the network's logits of images that are made here, divided by the temperature.
        resamples: how many bootstrap resamples the intervals come from, drawn anew for every stratum.
        seed: of the resamples.
    """
    shares = lesion_shares(data)
    present = ~np.isin(data.labels, answers.healthy)
    called = calls(answers.logits, answers.healthy, rules)
    found = list(strata(data, shares))
    located = map_values(data, answers, shares, seed)
    painted = painted_calls(data, answers, called, rules, shares, answer)
    rows: dict[str, list[SourceRow]] = {"findings": [], "maps": [], "painted": []}
    for by, name, chosen in found:
        inside = np.flatnonzero(chosen)
        drawn = draw(groups[inside], data.labels[inside], resamples, seed)
        first, paired = _findings(data, answers.scores, present, called, shares, inside, drawn)
        values = {"findings": first}
        if by in ("source", "source and sequence", "lesion size"):
            values["maps"] = _means(located, inside, drawn)
            values["painted"] = _means(painted, inside, drawn)
        for table, estimates in values.items():
            if estimates:
                row = SourceRow(
                    by=by,
                    name=name,
                    images=len(inside),
                    with_finding=int(present[inside].sum()),
                    groups=drawn.groups,
                    paired=paired,
                    values=estimates,
                )
                rows[table].append(row)
    return SourceReport(images=len(data), rules=tuple(rules), **{table: tuple(each) for table, each in rows.items()})


def map_values(data: Prepared, answers: Answers, shares: Array, seed: int) -> dict[str, Array]:
    """Measure the maps of the images with an outline; `[N]` by name, NaN for the others.

    The map is that of the labelled class or, where the class is not known, of the most probable finding. `centre` and
    `random` are the baselines of `training.localisation` on the same grid.
    """
    random = np.random.default_rng(seed)
    grid = (answers.maps.shape[2], answers.maps.shape[3])
    measures = {"pointing_game": peak_inside, "share_inside": share_inside, "cell_precision": cell_precision}
    values = {m + kind: np.full(len(data), np.nan) for m in measures for kind in ("", "_centre", "_random")}
    ill = np.setdiff1d(np.arange(answers.logits.shape[1]), answers.healthy)
    outlined = np.flatnonzero((shares > 0) & np.isin(data.labels, ill))
    for row in tqdm(outlined.tolist(), desc="maps", unit="image", leave=False):
        mask = np.asarray(data.masks[row]) > 127
        target = data.labels[row] if data.typed[row] else ill[answers.logits[row, ill].argmax()]
        noise = [random_map(grid, random) for _ in range(_RANDOM_MAPS)]
        maps = {"": [answers.maps[row, target]], "_centre": [centre_map(grid)], "_random": noise}
        for name, value in measures.items():
            for kind, group in maps.items():
                values[name + kind][row] = np.mean([float(value(each, mask)) for each in group])
    return values


def painted_calls(
    data: Prepared,
    answers: Answers,
    called: Mapping[str, Flags],
    rules: Sequence[CallRule],
    shares: Array,
    answer: Callable[[Grey8, str], NDArray[np.floating]],
) -> dict[str, Array]:
    """Ask again after the lesion was painted over: 1 where a slice is still called, 0 where not, `[N]`.

    NaN where it was not called before, has no outline, or holds no place for the control. Names are `VARIANT/RULE`.
    """
    before = np.any(np.stack(list(called.values())), axis=0)
    rows = np.flatnonzero(before & (shares > 0) & ~np.isin(data.labels, answers.healthy))
    values = {f"{variant}/{rule.name}": np.full(len(data), np.nan) for variant in PAINTED for rule in rules}
    for variant in PAINTED:
        made = [(row, painted(np.asarray(data.images[row]), data.masks[row], variant, row)) for row in rows.tolist()]
        kept = np.array([row for row, image in made if image is not None], np.int64)
        if not len(kept):
            continue
        images = np.stack([image for _, image in made if image is not None])
        still = calls(answer(images, variant), answers.healthy, rules)
        for name, flags in still.items():
            counted = called[name][kept]
            values[f"{variant}/{name}"][kept[counted]] = flags[counted]
    return values


def painted(image: Grey8, mask: Grey8, variant: str, seed: int) -> Grey8 | None:
    """Paint over the lesion and a rim by an inpainter that training does not use.

    Args:
        image: uint8 `[S, S]`.
        mask: uint8 `[S, S]`, non-zero inside the lesion.
        variant: `navier_stokes` (Bertalmio et al., CVPR 2001), `biharmonic` (Damelin & Hoang, Signal Processing 2018),
            or `control`: a patch of the same shape elsewhere in the head, by the first of them.
        seed: of the control's place.

    Returns:
        None where there is no place for the control.
    """
    area = widened(np.asarray(mask))
    if variant == "biharmonic":
        filled = np.asarray(inpaint_biharmonic(image / 255, area))
        return np.rint(255 * np.clip(filled, 0, 1)).astype(np.uint8)
    place = patch_elsewhere(image, area, np.random.default_rng(seed)) if variant == "control" else area
    if place is None:
        return None
    return np.asarray(cv2.inpaint(image, place.astype(np.uint8), 5, cv2.INPAINT_NS), np.uint8)


def _findings(
    data: Prepared,
    score: Array,
    present: Flags,
    called: Mapping[str, Flags],
    shares: Array,
    inside: NDArray[np.int64],
    drawn: Resamples,
) -> tuple[dict[str, Estimate], int]:
    """AUROC, sensitivity and false calls by rule, of the images `inside`; and how many patients have level pairs."""
    patients, sequences = ([names[row] for row in inside] for names in (data.groups, data.weightings))
    ill = present[inside]
    found: dict[str, Estimate | None] = {"auroc": auroc(ill, score[inside], drawn)}
    areas: dict[str, float] = {}
    for name, levels in (("auroc_within_patients", None), ("auroc_within_level", data.levels[inside])):
        areas = within_patients(score[inside], ill, patients, sequences, levels)
        found[name] = over_patients(areas, patients, drawn)
    for name, flags in called.items():
        here = flags[inside]
        large = ill & (shares[inside] > LARGE)
        found[f"sensitivity/{name}"] = drawn.ratio(here & ill, ill)
        found[f"sensitivity_large/{name}"] = drawn.ratio(here & large, large)
        found[f"false_calls/{name}"] = drawn.ratio(here & ~ill, ~ill)
    return {name: value for name, value in found.items() if value is not None}, len(areas)


def _means(values: Mapping[str, Array], inside: NDArray[np.int64], drawn: Resamples) -> dict[str, Estimate]:
    """Mean of each value over the images `inside` that have one."""
    found: dict[str, Estimate] = {}
    for name, column in values.items():
        known = np.isfinite(column[inside])
        mean = drawn.ratio(np.where(known, column[inside], 0.0), known)
        if mean is not None:
            found[name] = mean
    return found
