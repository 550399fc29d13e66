"""Delays what a host sends and receives, where the kernel has no netem: every frame goes through this process.

The host's device leaves the bridge, and a TAP device takes its place. A thread carries frames between both, each after
a time of its own, so that they overtake each other.
"""

from __future__ import annotations

import array
import fcntl
import heapq
import itertools
import os
import random
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

__all__ = ["CHECKSUMS_OFF", "Delay"]

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
ETH_P_ALL = 3
PACKET_OUTGOING = 4
FRAME_BYTES = 65536
# More are dropped, as by a router.
MAX_FRAMES = 4096
# Run in a host: its kernel completes checksums and splits segments, since nothing after this process would.
CHECKSUMS_OFF = (sys.executable, "-c", "from faults.delays import checksums_off; checksums_off('eth0')")


def checksums_off(device: str) -> None:
    """Let the kernel compute the checksums of what a device sends."""
    value = array.array("B", struct.pack("II", ETHTOOL_STXCSUM, 0))
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), value.buffer_info()[0]))


class Delay:
    """Carries frames between a device and a new TAP device until closed.

    Args:
        least_s: each frame is delayed for this long, and up to half as long again.
    """

    def __init__(self, device: str, tap: str, least_s: float) -> None:
        self._least_s = least_s
        self._tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self._tap, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((device, 0))
        self._wake, self._close = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; the TAP device goes away. Frames that are under way are lost."""
        os.close(self._close)
        self._thread.join()
        self._socket.close()
        os.close(self._tap)
        os.close(self._wake)

    def _carry(self) -> None:
        chance, order = random.Random(), itertools.count()
        waiting: list[tuple[float, int, Callable[[bytes], object], bytes]] = []
        while True:
            timeout_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            ready = select.select([self._socket.fileno(), self._tap, self._wake], [], [], timeout_s)[0]
            if self._wake in ready:
                return
            now = time.monotonic()
            for frame, send in self._receive(ready):
                if len(waiting) < MAX_FRAMES:
                    due = now + self._least_s * (1 + chance.random() / 2)
                    heapq.heappush(waiting, (due, next(order), send, frame))
            while waiting and waiting[0][0] <= now:
                _, _, send, frame = heapq.heappop(waiting)
                try:
                    send(frame)
                except OSError:
                    # The other side is down, or its queue is full.
                    continue

    def _receive(self, ready: list[int]) -> list[tuple[bytes, Callable[[bytes], object]]]:
        frames: list[tuple[bytes, Callable[[bytes], object]]] = []
        if self._socket.fileno() in ready:
            frame, address = self._socket.recvfrom(FRAME_BYTES)
            if address[2] != PACKET_OUTGOING:
                frames.append((frame, lambda data: os.write(self._tap, data)))
        if self._tap in ready:
            frames.append((os.read(self._tap, FRAME_BYTES), self._socket.send))
        return frames
