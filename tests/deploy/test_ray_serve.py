"""The application of docs/ray-serve-kserve.md, as Ray Serve would call it; Ray Serve's own part is stood in for."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from bright import SIDE, png, write_bundle_into
from starlette.testclient import TestClient

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "ray-serve-kserve.md"


def test_the_guide_s_application_answers(tmp_path, monkeypatch):
    write_bundle_into(tmp_path / "models", "bright")
    monkeypatch.setenv("RADIOLUCENT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ray = ModuleType("ray")
    ray.serve = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        deployment=lambda **_: lambda cls: SimpleNamespace(bind=lambda: cls), ingress=lambda _: lambda cls: cls
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    module: dict[str, object] = {}
    exec(code, module)  # noqa: S102 - our own guide
    application = module["application"]
    assert callable(application)
    with TestClient(application(), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        assert client.get("/readyz").json()["models"] == ["bright"]
        files = [("images", ("a.png", png(np.full((SIDE, SIDE), 200, np.uint8))))]
        answer = client.post("/v1/explain", data={"model": "bright"}, files=files)
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["explanations"]
