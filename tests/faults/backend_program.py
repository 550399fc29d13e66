"""The process of a key. Its text is run as it is, by Python without any package.

It reports "key, token, backend, host, process, CLOCK_BOOTTIME" to the observer every 20 ms, answers each request with
its key and token, and sends its key again and again through a tunnel (``/tunnel``). It ends at SIGTERM at once.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time

INTERVAL_S = 0.02
TICK_S = 0.1
KEY = os.environ["FAULTS_KEY"]
FACTS = {
    "key": KEY,
    "token": int(os.environ["SESSION_BACKEND_FENCING_TOKEN"]),
    "backend": os.environ["SESSION_BACKEND_ID"],
    "host": os.environ.get("FAULTS_HOST") or os.uname().nodename,
    "process": f"{os.getpid()}-{os.urandom(3).hex()}",
}


def boottime_offset() -> float:
    """What the time namespace of this host adds to CLOCK_BOOTTIME."""
    with contextlib.suppress(OSError), open("/proc/self/timens_offsets") as file:  # noqa: PTH123 - a small program
        for line in file:
            name, seconds, nanoseconds = line.split()
            if name == "boottime":
                return int(seconds) + int(nanoseconds) / 1e9
    return 0.0


def report() -> None:
    """Report this life to the observer until the process ends."""
    offset_s = boottime_offset()
    observer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        at = time.clock_gettime(time.CLOCK_BOOTTIME) - offset_s
        with contextlib.suppress(OSError):
            observer.sendto(json.dumps({**FACTS, "at": at}).encode(), os.environ["FAULTS_OBSERVER"])
        time.sleep(INTERVAL_S)


def serve(connection: socket.socket) -> None:
    """Answer one request."""
    with connection, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        if b"/tunnel" in head.split(b"\r\n", 1)[0]:
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ticks\r\n\r\n")
            while True:
                connection.sendall(KEY.encode() + b"\n")
                time.sleep(TICK_S)
        body = json.dumps(FACTS).encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
threading.Thread(target=report, daemon=True).start()


def listen() -> socket.socket:
    """Listen, as soon as the port is free: many servers try again where another one has it."""
    while True:
        with contextlib.suppress(OSError):
            return socket.create_server(("0.0.0.0", int(os.environ["PORT"])), backlog=64)
        time.sleep(TICK_S)


listener = listen()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
