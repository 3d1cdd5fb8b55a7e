"""Add the base image's own packages, as dpkg lists them, to a bill of materials (CycloneDX). Standard library only.

python3 deploy/system_packages.py BILL DPKG_STATUS
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


def installed(status: str) -> Iterator[dict[str, str]]:
    """The fields of each installed package (deb822 paragraphs; further lines of a field are left out)."""
    for paragraph in status.split("\n\n"):
        lines = [line.split(": ", 1) for line in paragraph.splitlines() if line[:1] not in (" ", "\t")]
        fields = {line[0]: line[1] for line in lines if len(line) == 2}
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def component(fields: dict[str, str], system: dict[str, str]) -> dict[str, str]:
    """A package, addressed as the purl specification's type `deb` says."""
    name, version = fields["Package"], fields["Version"]
    distribution = f"{system['ID']}-{system['VERSION_ID']}"
    address = (
        f"pkg:deb/{system['ID']}/{quote(name)}@{quote(version, safe='.~')}"
        f"?arch={fields['Architecture']}&distro={distribution}"
    )
    return {"type": "library", "name": name, "version": version, "purl": address, "bom-ref": address}


def main() -> None:
    """Entry point."""
    bill, status = map(Path, sys.argv[1:])
    release = platform.freedesktop_os_release()
    content = json.loads(bill.read_text())
    content["components"] += [component(fields, release) for fields in installed(status.read_text())]
    bill.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
