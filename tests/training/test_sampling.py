from __future__ import annotations

from collections import Counter

import numpy as np

from training.config import SamplingConfig
from training.datasets.prepared import Prepared
from training.sampling import Sampler

HEALTHY = np.array([False, True])


def slices() -> Prepared:
    """A large and a small source with findings, volumes with both kinds of slices, healthy heads of another source."""
    rows: list[tuple[str, str, int, float]] = [("large", f"l{n}", 0, np.nan) for n in range(80)]
    rows += [("small", f"s{n}", 0, np.nan) for n in range(10)]
    rows += [("volumes", "one", level % 2, level / 10) for level in range(11)]
    rows += [("heads", f"h{n}", 1, np.nan) for n in range(40)]
    labels = np.array([label for _, _, label, _ in rows], np.int64)
    masks = np.zeros((len(rows), 16, 16), np.uint8)
    masks[labels == 0, 2:5, 2:5] = 255
    names = tuple(str(n) for n in range(len(rows)))
    return Prepared(
        np.zeros_like(masks),
        masks,
        labels == 0,
        labels,
        tuple(group for _, group, _, _ in rows),
        names,
        sources=tuple(source for source, _, _, _ in rows),
        weightings=("T1",) * len(rows),
        levels=np.array([level for *_, level in rows]),
    )


def draw(config: SamplingConfig, data: Prepared, batches: int = 200):
    sampler = Sampler(data, HEALTHY, config)
    random = np.random.default_rng(0)
    return [sampler.draw(8, random) for _ in range(batches)]


def sources(config: SamplingConfig) -> Counter[str]:
    data = slices()
    return Counter(data.sources[each.row] for batch in draw(config, data) for each in batch)


def test_half_of_every_batch_has_a_finding():
    data = slices()
    for batch in draw(SamplingConfig(), data, 20):
        assert [data.labels[each.row] for each in batch].count(0) == 4
        assert not any(each.painted for each in batch)


def test_small_groups_are_drawn_more_often_than_their_size_says():
    data = slices()
    drawn = Counter(
        data.sources[each.row] for batch in draw(SamplingConfig(smallest=1, power=0.5), data) for each in batch
    )
    assert drawn["large"] / drawn["small"] < 4  # eight times as many images
    even = Counter(
        data.sources[each.row] for batch in draw(SamplingConfig(smallest=1, power=0), data) for each in batch
    )
    assert 0.8 < even["large"] / even["small"] < 1.25


def test_painted_images_are_those_with_a_lesion():
    data = slices()
    draws = [each for batch in draw(SamplingConfig(painted=0.5), data) for each in batch[4:]]
    share = np.mean([each.painted for each in draws])
    assert 0.4 < share < 0.6
    assert all(data.labels[each.row] == int(not each.painted) for each in draws)


def test_partners_are_of_the_same_volume_and_mostly_near():
    data = slices()
    distances: list[float] = []
    for batch in draw(SamplingConfig(paired=1.0, power=0, smallest=1), data):
        for own, other in zip(batch[:4], batch[4:], strict=True):
            if data.sources[own.row] == "volumes":
                assert data.groups[other.row] == "one"
                assert data.labels[other.row] == 1
                distances.append(abs(data.levels[own.row] - data.levels[other.row]))
    assert np.mean(distances) < 0.3  # any pair of them: 0.38


def test_a_part_without_healthy_images_gives_findings_only():
    data = slices()
    keep = np.flatnonzero(data.labels == 0)
    names = ("",) * len(keep)
    masks = np.zeros_like(data.masks[keep])
    only = Prepared(data.images[keep], masks, data.has_mask[keep], data.labels[keep], names, names)
    for batch in draw(SamplingConfig(), only, 5):
        assert len(batch) == 8
