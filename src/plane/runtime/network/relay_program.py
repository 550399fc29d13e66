"""Forward connections to the port of a backend that has a network namespace of its own.

Run as ``python -I -S relay_program.py LISTENER PORT PID STARTED_AT``: the inherited descriptor of a listening socket,
the backend's port, and a process, which is the first one of a container or a supervisor whose first child is in the
namespace.

Connections are accepted outside of the namespace and opened inside. So this process enters the namespace once, drops
its capabilities, and is never visible to the backend. The backend must not obtain a socket from outside, which would
let it leave its namespace (connect(2) with AF_UNSPEC). The relay ends with the given process, and outlives the drone.

Each such backend has one of these processes, so this file imports little, and only of the standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import socket
import struct
import sys
import time

__all__ = ["main"]

NAMESPACE_TIMEOUT_S = 10.0
NAMESPACE_POLL_S = 0.001
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NS_GET_USERNS = 0xB701
PR_SET_NO_NEW_PRIVS = 38
# struct __user_cap_header_struct of version 3, and two empty __user_cap_data_struct.
CAP_HEADER, NO_CAPABILITIES = struct.pack("=Ii", 0x20080522, 0), bytes(24)
# Concurrent connections; more wait in the backlog of the listener.
CONNECTION_LIMIT = 2_000
# Descriptors that are not connections.
OTHER_DESCRIPTORS = 32
READ_BYTES = 64 * 1024
# After an accept that failed because the limit of open files was lowered meanwhile.
ACCEPT_PAUSE_S = 0.1
# SO_LINGER with 0 s sends RST: a connection that fails on one side must not end cleanly on the other.
ABORT = struct.pack("ii", 1, 0)


class Side:
    """One of the two sockets of a connection.

    Attributes:
        peer: the other socket.
        unsent: bytes that could not be written to this socket yet.
        has_ended: it sends no more bytes.
        events: the registered epoll events; 0: not registered, because epoll always reports a hang-up.
    """

    __slots__ = ("closed", "connecting", "events", "has_ended", "peer", "socket", "unsent")

    peer: Side

    def __init__(self, connection: socket.socket, *, connecting: bool = False) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.socket = connection
        self.connecting = connecting
        self.unsent = b""
        self.has_ended = False
        self.closed = False
        self.events = 0

    def wanted_events(self) -> int:
        """Return the events to wait for. Reading waits until the peer has accepted all earlier bytes."""
        if self.connecting or self.peer.connecting:
            return select.EPOLLOUT if self.connecting else 0
        reads = select.EPOLLIN if not self.has_ended and not self.peer.unsent else 0
        return reads | (select.EPOLLOUT if self.unsent else 0)


class Relay:
    """Forwards between a listener and a port of this process's network namespace.

    Args:
        supervisor: pidfd of the process with which the relay ends.
    """

    def __init__(self, listener: socket.socket, port: int, supervisor: int) -> None:
        self._listener = listener
        self._port = port
        self._supervisor = supervisor
        self._epoll = select.epoll()
        self._sides: dict[int, Side] = {}
        self._accepts = False
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * CONNECTION_LIMIT + OTHER_DESCRIPTORS
        limit = wanted if hard == resource.RLIM_INFINITY else max(soft, min(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        self._limit = min(CONNECTION_LIMIT, (limit - OTHER_DESCRIPTORS) // 2)

    def run(self) -> None:
        """Forward until the supervisor ends."""
        self._listener.setblocking(False)
        self._epoll.register(self._supervisor, select.EPOLLIN)
        while True:
            self._watch_listener()
            for descriptor, events in self._epoll.poll():
                if descriptor == self._supervisor:
                    return
                if descriptor == self._listener.fileno():
                    self._accept()
                elif side := self._sides.get(descriptor):
                    self._handle(side, events)

    def _watch_listener(self) -> None:
        accepts = len(self._sides) < 2 * self._limit
        if accepts and not self._accepts:
            self._epoll.register(self._listener, select.EPOLLIN)
        elif self._accepts and not accepts:
            self._epoll.unregister(self._listener)
        self._accepts = accepts

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            time.sleep(ACCEPT_PAUSE_S)
            return
        outside = Side(client)
        try:
            inside = self._connect(socket.AF_INET, "127.0.0.1")
        except OSError:
            _abort(outside)
            return
        self._pair(outside, inside)

    def _connect(self, family: int, host: str) -> Side:
        side = Side(socket.socket(family, socket.SOCK_STREAM), connecting=True)
        try:
            side.socket.connect((host, self._port))
        except BlockingIOError:
            pass
        except OSError:
            side.socket.close()
            raise
        return side

    def _pair(self, outside: Side, inside: Side) -> None:
        outside.peer, inside.peer = inside, outside
        for side in (outside, inside):
            self._sides[side.socket.fileno()] = side
        self._watch(inside)

    def _handle(self, side: Side, events: int) -> None:
        try:
            if side.connecting:
                self._complete(side)
            elif events & select.EPOLLERR:
                raise OSError(side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "failed")
            else:
                if events & select.EPOLLOUT:
                    _send(side, side.unsent)
                if events & (select.EPOLLIN | select.EPOLLHUP) and side.wanted_events() & select.EPOLLIN:
                    _forward(side)
        except BlockingIOError:
            pass
        except OSError:
            self._close(side, abort=True)
            return
        peer = side.peer
        if side.has_ended and peer.has_ended and not side.unsent and not peer.unsent:
            self._close(side, abort=False)
            return
        for each in (side, peer):
            self._watch(each)

    def _complete(self, inside: Side) -> None:
        """Use an established connection, or try the loopback address of the other protocol."""
        error = inside.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == 0:
            inside.connecting = False
        elif inside.socket.family == socket.AF_INET:
            other = self._connect(socket.AF_INET6, "::1")
            outside = inside.peer
            self._unregister(inside)
            inside.socket.close()
            self._pair(outside, other)
            inside.peer = inside
            inside.closed = True
        else:
            raise OSError(error, "refused")

    def _watch(self, side: Side) -> None:
        if side.closed:
            return
        events, descriptor = side.wanted_events(), side.socket.fileno()
        if events and not side.events:
            self._epoll.register(descriptor, events)
        elif side.events and not events:
            self._epoll.unregister(descriptor)
        elif events != side.events:
            self._epoll.modify(descriptor, events)
        side.events = events

    def _unregister(self, side: Side) -> None:
        if side.events:
            self._epoll.unregister(side.socket.fileno())
            side.events = 0
        self._sides.pop(side.socket.fileno(), None)

    def _close(self, side: Side, *, abort: bool) -> None:
        for each in (side, side.peer):
            if not each.closed:
                each.closed = True
                self._unregister(each)
                if abort:
                    _abort(each)
                else:
                    each.socket.close()


def _forward(side: Side) -> None:
    """Forward the bytes of a side, or its end of file."""
    data = side.socket.recv(READ_BYTES)
    if data:
        _send(side.peer, data)
    else:
        side.has_ended = True
        _send(side.peer, b"")


def _send(side: Side, data: bytes) -> None:
    """Write as much as possible, and shut the direction down after the last byte."""
    try:
        side.unsent = data[side.socket.send(data) :] if data else b""
    except BlockingIOError:
        side.unsent = data
    if side.peer.has_ended and not side.unsent:
        side.socket.shutdown(socket.SHUT_WR)


def _abort(side: Side) -> None:
    side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    side.socket.close()


def main(arguments: list[str]) -> int:
    """Run the relay. Return 1 if the process does not run or has no network namespace of its own."""
    descriptor, port, pid, started_at = map(int, arguments)
    try:
        supervisor = os.pidfd_open(pid)
        if _start_time(pid) != started_at:
            return 1
        _enter(_namespace_of(pid))
    except OSError as error:
        os.write(2, f"network relay of process {pid}: {error}\n".encode())
        return 1
    _drop_capabilities()
    Relay(socket.socket(fileno=descriptor), port, supervisor).run()
    return 0


def _namespace_of(pid: int) -> int:
    """Open the network namespace of the process or of its first child, whichever differs from this process's.

    Raises:
        OSError: neither has one within the timeout, or the process has ended.
    """
    end = time.monotonic() + NAMESPACE_TIMEOUT_S
    own = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - pathlib costs 1 MB
    while time.monotonic() < end:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - as above
            children = file.read().split()
        for each in [str(pid), *children[:1]]:
            namespace = os.open(f"/proc/{each}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(namespace).st_ino != own:
                return namespace
            os.close(namespace)
        time.sleep(NAMESPACE_POLL_S)
    raise TimeoutError("no network namespace was created")


def _enter(namespace: int) -> None:
    """Enter a network namespace, and before that the user namespace that owns it, if it is another one.

    Raises:
        OSError: this process may not enter it.
    """
    owner = fcntl.ioctl(namespace, NS_GET_USERNS)
    if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116 - as above
        _set_namespace(owner, CLONE_NEWUSER)
    _set_namespace(namespace, CLONE_NEWNET)
    os.close(owner)
    os.close(namespace)


def _set_namespace(descriptor: int, kind: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset(CAP_HEADER, NO_CAPABILITIES)


def _start_time(pid: int) -> int:
    """Return the start time of a process, like `plane.runtime.process.procfs.start_time`."""
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - as above
        return int(stat.read().rpartition(")")[2].split()[19])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
