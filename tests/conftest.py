"""What holds for all tests."""

from __future__ import annotations

import os

# The networks of the tests are small: threads of OpenMP wait for each other longer than they compute. It is read when
# torch and NumPy are loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
