"""What `make compiled` compiles (decision 0023), as pyproject.toml has it for mypyc."""

from __future__ import annotations

from pathlib import Path

__all__ = ["compiled_sources"]

SOURCES = Path(__file__).parents[2] / "src/plane"
PACKAGES = ("decisions/http", "decisions/routing", "proxy/data_plane")


def compiled_sources() -> list[Path]:
    """Return the modules of these packages, relative to `plane`, in order. Those left out are among them."""
    return sorted(path.relative_to(SOURCES) for package in PACKAGES for path in (SOURCES / package).glob("*.py"))
