from __future__ import annotations

import pytest

from loadtests.mix import FileError, read_mix
from loadtests.shapes import SHAPES, users_at

ROOM = "[reading_room]\nweight = 2\nthink_s = [1, 2]\n"


def test_the_shipped_mix_has_every_kind():
    mix = read_mix()
    assert len(mix.kinds) == 6
    assert mix.users == sum(kind.weight for kind in mix.kinds.values()) >= 10


def written(tmp_path, text):
    path = tmp_path / "mix.toml"
    path.write_text(text)
    return path


def test_kinds_left_out_do_not_come(tmp_path):
    mix = read_mix(written(tmp_path, ROOM))
    assert list(mix.kinds) == ["reading_room"]
    assert mix.users == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no kind of user comes"),
        ("[reading_room", "mix.toml"),
        ("[reading_rom]\nweight = 1\nthink_s = [1, 2]", "reading_rom: Extra inputs"),
        ("[bad_input]\nweight = 0\nthink_s = [1, 2]", "bad_input.weight: Input should be greater"),
        ("[bad_input]\nweight = 1\nthink_s = [2, 1]", "bad_input.think_s: Value error, the first may not be larger"),
        ("[bad_input]\nweight = 1\nthink_s = [-1, 1]", "bad_input.think_s.0"),
        ("[bad_input]\nweight = 1", "bad_input.think_s: Field required"),
        (ROOM + 'formats = ["tiff"]', "reading_room.formats.0"),
        (ROOM + "overlay = 2", "reading_room.overlay"),
        ("[pacs_burst]\nweight = 1\nthink_s = [1, 2]\nslices = [20, 500]", "at most 200"),
        ('[pacs_burst]\nweight = 1\nthink_s = [1, 2]\nslices = [20, 65]\ndoor = "explain"', "at most 64"),
    ],
)
def test_a_bad_file_says_where_and_why(tmp_path, text, message):
    with pytest.raises(FileError, match=r"mix\.toml") as caught:
        read_mix(written(tmp_path, text))
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        read_mix(tmp_path / "none.toml")


def counts(shape, users=100, seconds=200):
    return [users_at(shape, second, seconds, users) for second in range(seconds)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_stays_within_the_users_and_ends(shape):
    assert all(1 <= count <= 100 for count in counts(shape))
    assert max(counts(shape)) == 100
    assert users_at(shape, 200, 200, 100) is None


def test_the_shapes_are_what_they_are_called():
    assert set(counts("constant")) == {100}
    assert sorted(set(counts("steps"))) == counts("steps")[::40] == [20, 40, 60, 80, 100]
    assert [counts("spike")[second] for second in (0, 79, 80, 119, 120, 199)] == [20, 20, 100, 100, 20, 20]
    assert counts("soak")[0] == 1
    assert set(counts("soak")[10:190]) == {100}
    day = counts("diurnal", seconds=240)
    assert max(day[:50]) < 20 < day[130] < day[155] < day[105] == 100
