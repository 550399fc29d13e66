"""The process that tests run for a key: an HTTP server of the standard library. Its text is run as it is.

``MODE``: "" ends on SIGTERM at once; "graceful" takes half a second and exits with 0; "stubborn" ignores it; "silent"
never listens; "exit" writes a line and exits with 3.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = os.environ.get("MODE", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/exit":
            # The output may be on a full disk.
            with contextlib.suppress(OSError):
                print("the last words", flush=True)
            os._exit(int(query))
        if path == "/upgrade":
            self.echo()
        elif path == "/trickle":
            self.trickle(float(query))
        else:
            self.answer({"path": self.path, "headers": list(self.headers.items()), "pid": os.getpid()})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"bytes": len(body)})

    def answer(self, facts: object) -> None:
        names = ("KEY", "ID", "FENCING_TOKEN", "STATIC_TOKEN")
        session = {name: os.environ.get(f"SESSION_BACKEND_{name}") for name in names}
        body = json.dumps({"session": session, "facts": facts}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def echo(self) -> None:
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "echo")
        self.end_headers()
        while data := self.connection.recv(65536):
            self.connection.sendall(data)
        self.close_connection = True

    def trickle(self, seconds: float) -> None:
        """A download that takes its time, without a length."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wfile.write(b".")
            time.sleep(0.1)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


def stop(*_: object) -> None:
    if MODE == "graceful":
        threading.Timer(0.5, lambda: os._exit(0)).start()
    elif MODE != "stubborn":
        os._exit(143)


signal.signal(signal.SIGTERM, stop)
if MODE == "exit":
    print("cannot go on", file=sys.stderr)
    sys.exit(3)
if MODE == "silent":
    time.sleep(3600)
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
