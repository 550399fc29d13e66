"""The site: it knows its users, and sends each to the process of a document: http://127.0.0.1:8000/open/NAME?user=USER"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from plane.client import Plane, ProcessExecutable, SpawnConfig

EDITOR = [sys.executable, str(Path(__file__).with_name("document.py").resolve())]


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not url.path.startswith("/open/"):
            self.send_error(404)
            return
        user = parse_qs(url.query).get("user", ["somebody"])[0]
        config = SpawnConfig(executable=ProcessExecutable(command=EDITOR), max_idle_seconds=60)
        response = plane.connect(url.path.removeprefix("/open/"), config, user=user)
        self.send_response(302)
        self.send_header("Location", response.url)
        self.end_headers()


with Plane("http://127.0.0.1:8080") as plane:
    ThreadingHTTPServer(("127.0.0.1", 8000), Site).serve_forever()
