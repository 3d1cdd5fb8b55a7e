from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def lint_imports(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_import_contracts_hold():
    done = lint_imports()
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_the_contracts_would_notice_torch_in_the_service(tmp_path):
    """The same contracts on a copy whose service imports torch."""
    for package in ("service", "training", "export"):
        for path in (ROOT / package).rglob("*.py"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    engine = tmp_path / "service" / "engine.py"
    engine.write_text(engine.read_text().replace("import os\n", "import os\nimport torch\n", 1))
    done = lint_imports(cwd=tmp_path)
    assert done.returncode == 1
    assert "the service needs no training framework BROKEN" in done.stdout


@pytest.mark.parametrize("module", ["service.serving", "service.pipeline"])
def test_start_up_imports_neither_onnxruntime_nor_what_training_needs(module):
    heavy = {"torch", "onnx", "onnxruntime", "training", "export"}
    code = f"import sys, {module}\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_supervisor_of_workers_loads_little_of_what_they_load():
    heavy = {"fastapi", "pydicom", "sqlalchemy", "cv2", "numpy"}
    code = f"import sys, service.app\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_service_group_of_requirements_has_no_torch_and_names_no_index():
    for name, absent in (("service", ["torch==", "shap==", "locust=="]), ("full", [])):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert text.count("--hash=sha256:") > 100
        for word in ["--index-url", "--extra-index-url", "http://", "file://", *absent]:
            assert word not in text, (name, word)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [line for line in declared["dependencies"] if line.startswith("torch")]
