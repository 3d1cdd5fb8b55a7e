from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from tests.soak.memory import anonymous_mib, processes_of

_CHILD = "kept = b'x' * (40 << 20); print('ready', flush=True); input()"
_PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_CHILD!r}])"


def test_what_a_child_holds_is_seen_and_what_it_maps_is_not():
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout and parent.stdout.readline() == "ready\n"
        found = processes_of(psutil.Process(parent.pid))
        assert len(found) == 2
        assert sum(map(anonymous_mib, found)) == pytest.approx(40 + 2 * 5, abs=8)
        assert anonymous_mib(found[1]) > 40
        parent.communicate("\n")
    with pytest.raises(psutil.NoSuchProcess):
        anonymous_mib(found[1])
