from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from export.foreign import KINDS, join, kinds_in, make_foreign, read_foreign
from export.golden import phantoms
from service.types import PreprocessingSpec
from training.datasets.record import DatasetError

SIDE = 96


@pytest.fixture(scope="module")
def own() -> np.ndarray:
    return phantoms(SIDE)[::2, ..., 0]


@pytest.mark.filterwarnings("error")
def test_every_kind_is_made_and_the_same_seed_makes_the_same(own):
    made = make_foreign(own, 3, seed=1)
    assert made.images.shape == (3 * len(KINDS), SIDE, SIDE) and made.images.dtype == np.uint8
    assert [*dict.fromkeys(made.kinds.tolist())] == [*KINDS]
    assert np.array_equal(made.images, make_foreign(own, 3, seed=1).images)
    assert not np.array_equal(made.images, make_foreign(own, 3, seed=2).images)
    only = make_foreign(own, 3, seed=1, kinds=["text"])
    assert np.array_equal(only.images, made.images[made.kinds == "text"])
    flat = {kind for kind in KINDS if max(image.std() for image in made.images[made.kinds == kind]) == 0}
    assert flat == {"constant"}


def test_spoilt_images_are_what_they_say(own):
    one = own[:1]
    by_kind = {kind: make_foreign(one, 1, kinds=[kind]).images[0] for kind in KINDS}
    assert np.array_equal(by_kind["upside_down"], np.rot90(one[0], 2))
    assert np.array_equal(by_kind["negated"], 255 - one[0])
    assert any(np.array_equal(by_kind["sideways"], np.rot90(one[0], turns)) for turns in (1, 3))
    assert by_kind["shuffled_tiles"].mean() == pytest.approx(one.mean(), rel=0.05)
    ct = by_kind["head_ct"].astype(float)
    middle, ring = ct[40:56, 40:56], ct.max(axis=1)[10:-10]
    assert (ring > 200).all() and middle.std() < 25 and 30 < middle.mean() < 190
    assert ct[0, 0] == 0


def test_files_are_read_by_folder_and_prepared(tmp_path):
    random, spec = np.random.default_rng(0), PreprocessingSpec(field_of_view="frame", size=64)
    for kind, count in (("knee", 3), ("street", 2)):
        (tmp_path / kind / "deep").mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (80, 70, 3), np.uint8)
            suffix = "tif" if number == 0 else "png"  # the service reads no TIFF; training does
            Image.fromarray(pixels).save(tmp_path / kind / "deep" / f"{number}.{suffix}")
    read = read_foreign(kinds_in(tmp_path), spec)
    assert read.kinds.tolist() == ["knee"] * 3 + ["street"] * 2
    assert read.images.shape == (5, 64, 64) and read.images.std() > 20
    few = read_foreign(kinds_in(tmp_path), spec, each=1)
    assert few.kinds.tolist() == ["knee", "street"]
    assert len(join(read, few)) == 7


def test_what_cannot_be_made_or_read_is_refused(own, tmp_path):
    with pytest.raises(ValueError, match=r"no kinds \['cat'\]"):
        make_foreign(own, 1, kinds=["cat"])
    with pytest.raises(ValueError, match="there is none"):
        make_foreign(own[:0], 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no folders with files"):
        kinds_in(tmp_path)
