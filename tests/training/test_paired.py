from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.__main__ import main
from training.datasets.record import DatasetError
from training.delong import compare_areas
from training.paired import Comparison, compare, read_predictions
from training.statistics import compare_paired, mcnemar

REPORTS = Path(__file__).resolve().parents[2] / "docs" / "reports"
CLASSES = ("CNV", "DME", "NORMAL")


def write(path: Path, seed: int, skill: float, groups: int = 30) -> Path:
    """Predictions of a made-up model on 120 cases of the same truth, in an order of its own."""
    labels = np.random.default_rng(0).integers(0, 3, 120)
    random = np.random.default_rng(seed)
    logits = random.normal(size=(120, 3)) + skill * np.eye(3)[labels]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    lines = [
        ",".join(
            [f"id{i},g{i % groups}", CLASSES[labels[i]], CLASSES[shares[i].argmax()], *map("{:.6f}".format, shares[i])]
        )
        for i in random.permutation(120)
    ]
    path.write_text("\n".join(["id,group,label,predicted,p_CNV,p_DME,p_NORMAL", *lines]) + "\n")
    return path


@pytest.fixture
def better(tmp_path: Path) -> Path:
    return write(tmp_path / "better.csv", 1, 3.0)


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    return write(tmp_path / "worse.csv", 2, 1.0)


def test_cases_are_matched_by_id_and_every_test_is_the_one_of_its_name(better: Path, worse: Path) -> None:
    one, two = read_predictions(better), read_predictions(worse)
    found = compare(one, two, healthy=("NORMAL",), resamples=300)
    order = np.argsort(one.ids), np.argsort(two.ids)
    p, q, labels = one.probabilities[order[0]], two.probabilities[order[1]], one.labels[order[0]]
    right = p.argmax(axis=1) == labels, q.argmax(axis=1) == labels
    assert found.mcnemar == mcnemar(*right)
    truth = np.eye(3)[labels]
    brier = np.square(p - truth).sum(axis=1), np.square(q - truth).sum(axis=1)
    assert found.score.t == pytest.approx(compare_paired(*brier).t)
    assert found.delong.z == pytest.approx(compare_areas(1 - p[:, 2], 1 - q[:, 2], labels != 2).z)
    assert found.accuracy.value == pytest.approx(right[0].mean() - right[1].mean())
    assert found.auroc.value == pytest.approx(found.delong.difference)
    assert found.by_group.freedom == 29
    assert found.accuracy.low > 0
    assert found.score.high < 0  # a smaller Brier score is better


def test_a_model_is_no_better_than_itself(better: Path) -> None:
    found = compare(read_predictions(better), read_predictions(better), healthy=("NORMAL",), resamples=50)
    assert (found.mcnemar.p, found.delong.p, found.accuracy.value, found.score) == (1, 1, 0, None)


def test_scores_of_two_methods(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, shift in (("a", 0.3), ("b", 0.0)):
        rows = [f"c{i},{random.normal() + shift:.5f}" for i in range(50)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,deletion", *rows]) + "\n")
    one, two = (read_predictions(tmp_path / f"{name}.csv", "deletion") for name in "ab")
    found = compare(one, two)
    assert found.score.t == pytest.approx(compare_paired(one.scores, two.scores).t)
    assert (found.mcnemar, found.delong, found.groups) == (None, None, 50)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("p_NORMAL", "p_HEALTHY", "column label: no such class"),
        ("id7,", "id777,", "120 and 120, 119 in common"),
        ("id7,", "id8,", "twice"),
        ("group,label", "group,truth", "line 1: no column label"),
        (",CNV,", ",FLU,", "column label: no such class"),
        (",0.", ",x0.", "column p_CNV: not a number"),
    ],
)
def test_what_cannot_be_compared_is_refused(better: Path, worse: Path, old: str, new: str, message: str) -> None:
    worse.write_text(worse.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        compare(read_predictions(better), read_predictions(worse))


def test_other_labels_and_unknown_classes_are_refused(better: Path, tmp_path: Path) -> None:
    one = read_predictions(better)
    head, first, *rest = better.read_text().splitlines()
    label = first.split(",")[2]
    other = next(name for name in CLASSES if name != label)
    (tmp_path / "other.csv").write_text("\n".join([head, first.replace(f",{label},", f",{other},", 1), *rest]) + "\n")
    with pytest.raises(DatasetError, match="labels of the same cases differ"):
        compare(one, read_predictions(tmp_path / "other.csv"))
    (tmp_path / "fewer.csv").write_text("id,label,p_CNV,p_DME\na,CNV,0.5,0.5\n")
    with pytest.raises(DatasetError, match="not the same cases: 120 and 1, 0 in common"):
        compare(one, read_predictions(tmp_path / "fewer.csv"))
    (tmp_path / "turned.csv").write_text(better.read_text().replace("p_CNV,p_DME", "p_DME,p_CNV", 1))
    with pytest.raises(DatasetError, match="not the same classes"):
        compare(one, read_predictions(tmp_path / "turned.csv"))
    with pytest.raises(DatasetError, match="no class HEALTHY"):
        compare(one, one, healthy=("HEALTHY",))


def test_the_command_reads_what_evaluate_writes(better: Path, worse: Path, tmp_path: Path, capsys) -> None:
    written = tmp_path / "found.json"
    arguments = ["--healthy", "NORMAL", "--bootstrap", "50", "--json", str(written)]
    assert main(["study", "models", str(better), str(worse), *arguments]) == 0
    found = Comparison.model_validate_json(written.read_bytes())
    assert f"{found.delong.difference:.4f}" in capsys.readouterr().out.replace("\n", "")
    reports = [str(REPORTS / name) for name in ("brain-mri-resnet50", "retinal-oct-oculusnet")]
    assert main(["study", "models", *reports]) == 2
    assert "0 in common" in capsys.readouterr().err
    assert main(["study", "models", reports[0], reports[0], "--bootstrap", "20", "--healthy", "no_tumor"]) == 0
