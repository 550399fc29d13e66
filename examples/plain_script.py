"""Opens a process for a key, waits until it answers, uses it, and ends it: a plain script.

Run it beside `plane dev`: `python examples/plain_script.py http://127.0.0.1:8080`
"""

import sys
import urllib.request

from plane.client import CallRefused, Plane, ProcessExecutable, SpawnConfig

SERVER = ["/bin/sh", "-c", f"exec {sys.executable} -m http.server --bind 127.0.0.1 $PORT"]


def main(controller: str) -> None:
    with Plane(controller) as plane:
        spawn = SpawnConfig(executable=ProcessExecutable(command=SERVER), max_idle_seconds=60)
        try:
            answer = plane.connect("files of ada", spawn, user="ada")
        except CallRefused as error:
            # The kind is for programs: KeyHeld, NoDroneAvailable, …
            sys.exit(f"{error.kind}: {error}")
        plane.until_ready(answer.backend_id)
        with urllib.request.urlopen(answer.url) as page:
            print(answer.url, "answers", page.status)
        plane.terminate(answer.backend_id)
        for state in plane.status_stream(answer.backend_id):
            print(state.status)


if __name__ == "__main__":
    main(sys.argv[1])
