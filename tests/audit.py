"""Known weaknesses of the locked packages: `python -m tests.audit`, or `make audit`.

Asks the OSV database (https://osv.dev) with pip-audit, which installs nothing. Exit status: 0 where nothing is known
against any, 1 where something is, 2 where the database cannot be asked: then nothing is known either way.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).resolve().parents[1] / "requirements"


def audit(lock: Path, *more: str) -> int:
    """Of one lock file; `more` are arguments of pip-audit."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip"]
    done = subprocess.run(
        [*command, "--vulnerability-service", "osv", "--timeout", "15", "--progress-spinner", "off", *more],
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1][:300]
    if done.returncode == 0:
        sys.stdout.write(f"{lock.name}: {said}\n")
        return 0
    if done.stdout.strip():  # the table of what was found
        sys.stdout.write(f"{lock.name}: {said}\n{done.stdout}\n")
        return 1
    sys.stderr.write(f"{lock.name}: not audited, the database could not be asked: {said}\n")
    return 2


def main() -> int:
    """All locks; a finding counts more than a lock that was not audited."""
    statuses = {audit(lock) for lock in sorted(LOCKS.glob("*.txt"))}
    return 1 if 1 in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
