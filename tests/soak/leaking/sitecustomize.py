"""On the path of a service, makes its worker leak: so that it is known that a soak sees it (`--leak`)."""

import os
import sys
import threading
import time

_kept: list[bytearray] = []


def _leak(each_second: int) -> None:
    while True:
        time.sleep(0.1)
        _kept.append(bytearray(os.urandom(each_second // 10)))  # written to, so that it is there


if "_bentoml_impl.worker.service" in sys.orig_argv:
    threading.Thread(target=_leak, args=(int(os.environ["SOAK_LEAK_KIB"]) * 1024,), daemon=True).start()
