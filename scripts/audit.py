"""Are there known vulnerabilities in what is locked? Asks PyPI's advisories about ``requirements.lock``.

Where no advisories can be had (offline, or from a mirror that has none) it prints that, and does not fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ["main", "verdict"]

LOCK = "requirements.lock"
SERVICE_TIMEOUT_S = 10
COMMAND = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")


def verdict(dependencies: list[dict[str, Any]]) -> tuple[int, str]:
    """Return the exit code, and what to print.

    Args:
        dependencies: of pip-audit's report: each with ``name``, and ``skip_reason`` or ``version`` and ``vulns``.
    """
    asked = [each for each in dependencies if "skip_reason" not in each]
    vulnerable = [each for each in asked if each["vulns"]]
    if vulnerable:
        lines = [
            f"{each['name']} {each['version']}: {found['id']}; fixed in {', '.join(found['fix_versions']) or 'none'}"
            for each in vulnerable
            for found in each["vulns"]
        ]
        return 1, "\n".join(["known vulnerabilities; take newer versions into the lock:", *lines])
    if not asked:
        return 0, "not audited: no advisories can be had here"
    not_asked = len(dependencies) - len(asked)
    return 0, f"{len(asked)} dependencies have no known vulnerability" + (f"; {not_asked} unknown" if not_asked else "")


def main() -> int:
    """Run the audit; returns 1 if there are vulnerabilities."""
    command = [sys.executable, "-m", "pip_audit", *COMMAND, "--timeout", str(SERVICE_TIMEOUT_S), "-r", LOCK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        print(f"not audited: {last[0]}")
        return 0
    code, text = verdict(dependencies)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
