"""Prints what the program consists of as CycloneDX JSON: itself, and each library of the lock with its hashes.

python scripts/sbom.py requirements.lock > sbom.cdx.json
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from plane.version import VERSION

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_LIBRARY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<rest>(?:.*\\\n)*.*)$", re.M)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def libraries(lock: str) -> list[Component]:
    """Return the libraries of a lock file."""
    return [
        _component(found["name"], found["version"], _HASH.findall(found["rest"])) for found in _LIBRARY.finditer(lock)
    ]


def _component(name: str, version: str, hashes: list[str]) -> Component:
    purl = PackageURL("pypi", None, name, version)
    return Component(
        name=name,
        version=version,
        purl=purl,
        bom_ref=str(purl),
        type=ComponentType.LIBRARY,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in hashes],
    )


def bill(lock: str) -> str:
    """Return the bill of materials of the program whose lock this is."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    bom = Bom(components=libraries(lock))
    bom.metadata.component = program = _component(project["name"], VERSION, [])
    bom.register_dependency(program, bom.components)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)


if __name__ == "__main__":
    sys.stdout.write(bill(Path(sys.argv[1]).read_text()) + "\n")
