"""What the engine keeps of memory, in a process of its own: the arena is the process's."""

from __future__ import annotations

import json
import subprocess
import sys

MIB = 2**20
_RUN = """
import json, sys
from pathlib import Path
import numpy as np, psutil
from service.bundle import read_bundle
from service.engine import open_engine
held = lambda: psutil.Process().memory_full_info().uss
bundle = read_bundle(Path("models/retinal-oct-oculusnet"))
engines = [open_engine(bundle, threads=1, device="cpu", gradients=not number) for number in range(2)]
images = np.zeros((24, 224, 224, 1), np.uint8)
found = {"loaded": held()}
for number, engine in enumerate(engines):
    engine.run(images)
    found[f"predicted {number}"] = held()
engines[0].gradient(images[:8, ..., 0].astype(np.float32), np.ones((8, 4), np.float32))
found["gradients"] = held()
print(json.dumps(found))
"""


def test_graphs_share_what_their_batches_need_and_gradients_give_it_back():
    done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, check=True, timeout=120)
    held = json.loads(done.stdout.splitlines()[-1])
    first = held["predicted 0"] - held["loaded"]
    assert first > 20 * MIB
    assert held["predicted 1"] - held["predicted 0"] < first / 4
    assert held["gradients"] - held["predicted 1"] < first / 4
