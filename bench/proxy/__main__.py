"""``python -m bench.proxy [ROW…]``: measures all rows, or those whose names contain what is given; or ``profile``."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.proxy.load import hold, ping_for
from bench.proxy.parts import parts, serve_controller, serve_echo
from bench.proxy.profile import profile
from bench.proxy.rates import ROWS, measure_rates
from bench.proxy.single import SINGLE

__all__ = ["main"]


def measure(wanted: list[str]) -> bool:
    """Print all rows. True if all gates hold."""
    rows = [row for row in ROWS if not wanted or any(word in row.name for word in wanted)]
    singles = [name for name in SINGLE if not wanted or any(word in name for word in wanted)]
    if not rows and not singles and wanted != ["profile"]:
        names = [*(row.name for row in ROWS), *SINGLE, "profile"]
        sys.exit(f"no row has {' or '.join(wanted)} in its name; there are:\n  " + "\n  ".join(names))
    with tempfile.TemporaryDirectory() as folder, parts(Path(folder)) as found:
        if wanted == ["profile"]:
            profile(found)
            return True
        good = measure_rates(found, rows) if rows else True
        for name in singles:
            SINGLE[name](found)
        return good


def main() -> None:
    """Measure, or play one of the parts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    match sys.argv[1:]:
        case ["controller"]:
            uvloop.run(serve_controller())
        case ["echo"]:
            uvloop.run(serve_echo())
        case ["ping", port, path, connections]:
            print(uvloop.run(ping_for(int(port), path, int(connections))))
        case ["hold", port, path, count]:
            uvloop.run(hold(int(port), path, int(count)))
        case wanted:
            sys.exit(0 if measure(wanted) else 1)


if __name__ == "__main__":
    main()
