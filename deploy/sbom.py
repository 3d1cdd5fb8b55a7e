"""The image's bill of materials as CycloneDX JSON: the packages of a lock file, the shipped models by their digests.

Packages that another system or Python would get are left out; licences are those of the packages installed beside this
script. The base image's own packages are added when the image is built (deploy/system_packages.py).

python deploy/sbom.py requirements/container.txt deploy/sbom/container.cdx.json
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
TARGET = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}


def locked(lock: Path) -> dict[str, str]:
    """Versions by name of what the image gets of a lock file."""
    lines = (line.partition(" \\")[0] for line in lock.read_text().splitlines() if line and line[0] not in " #")
    wanted = (Requirement(line) for line in lines)
    chosen = [each for each in wanted if each.marker is None or each.marker.evaluate(TARGET)]
    return {each.name: next(iter(each.specifier)).version for each in chosen}


def licence(package: str) -> list[License]:
    """What an installed package says of itself, in a word."""
    try:
        said = metadata(package)
    except PackageNotFoundError:
        return []
    classified = [
        each.rpartition(" :: ")[2] for each in said.get_all("Classifier") or [] if each.startswith("License :: ")
    ]
    word = said.get("License-Expression") or (said.get("License") or "").strip()
    if not word or len(word) > 60 or "\n" in word:
        word = next(iter(classified), "")
    return [LicenseFactory().make_from_string(word)] if word else []


def packages(lock: Path) -> Iterator[Component]:
    """A component for each package."""
    for name, version in locked(lock).items():
        address = PackageURL("pypi", None, name, version)
        yield Component(name=name, version=version, purl=address, bom_ref=address.to_string(), licenses=licence(name))


def models(folder: Path) -> Iterator[Component]:
    """A component for each bundle, its files within."""
    for path in sorted(folder.glob("*/manifest.json")):
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        name = f"{manifest['id']}/{{}}"
        files = [
            Component(
                name=file,
                type=ComponentType.FILE,
                bom_ref=name.format(file),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
            for file, digest in sorted(manifest["files"].items())
        ]
        yield Component(
            name=manifest["id"],
            version=manifest["version"],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"{manifest['id']}@{manifest['version']}",
            description=manifest["title"],
            licenses=[LicenseFactory().make_with_name(manifest["licence"])],
            components=files,
        )


def bill(lock: Path) -> str:
    """The bill of the image that a lock file makes; the same files give the same text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = Component(
        name=project["name"],
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref=project["name"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )
    bom = Bom(components=[*packages(lock), *models(ROOT / "models")])
    bom.metadata.component = own
    bom.register_dependency(own, bom.components)
    content = json.loads(JsonV1Dot6(bom).output_as_string())
    del content["metadata"]["timestamp"], content["serialNumber"]
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Entry point."""
    lock, out = map(Path, sys.argv[1:])
    out.parent.mkdir(exist_ok=True)
    out.write_text(bill(lock))


if __name__ == "__main__":
    main()
