"""Connections to PostgreSQL: their settings and timeouts, and the errors of statements.

All statements of controllers are executed by `Database`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError, PlaneError
from plane.tasks import OwnedTasks

__all__ = [
    "CANNOT_CONNECT",
    "Database",
    "DatabaseUnavailable",
    "ReferencedRowDeleted",
    "RowLocked",
    "Transaction",
    "Unstorable",
    "cannot_connect",
    "connect",
    "open_database",
]

# A request must fail within five seconds when the database is unavailable: two to get a connection, three to use it.
ACQUIRE_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 10.0
# The server's timeouts, for a client that hangs and checks none itself. The lock timeout is shorter than the client's
# statement timeout, so that the client gets the reason. The server cancels a statement soon after its client gave up.
LOCK_TIMEOUT_MS = 2_500
SERVER_STATEMENT_TIMEOUT_S = 5
# Between two statements of one transaction a controller only computes.
IDLE_IN_TRANSACTION_TIMEOUT_S = 3
# A peer that has vanished is detected within 25 s, both while nothing is sent and while something is.
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
USER_TIMEOUT_MS = 25_000
POOL_SIZE = 16
MIN_POOL_SIZE = 4
# Connections that are kept for the next statement. The pool closes others after some minutes without use.
MAX_KEPT = MIN_POOL_SIZE

# The connection cannot be used any more. `asyncpg.InternalClientError`: the driver's state does not match the server's
# messages, for example when a restarting server closes a connection during a statement.
_UNUSABLE = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_LOST = (OSError, TimeoutError, *_UNUSABLE)
# Raised by a server that is starting, stopping, out of resources, or no longer the primary; or by a timeout of
# `_SERVER_SETTINGS`.
_UNAVAILABLE = (
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DeadlockDetectedError,
)


log = structlog.get_logger("plane.database")

if TYPE_CHECKING:
    _AnyConnection = asyncpg.Connection[asyncpg.Record]
else:
    _AnyConnection = asyncpg.Connection


class DatabaseUnavailable(PlaneError):
    """The database did not respond. The statement may or may not have taken effect."""


class RowLocked(DatabaseUnavailable):
    """Another session holds a lock that the statement needs, for longer than it may wait. It had no effect."""


class ReferencedRowDeleted(PlaneError):
    """A referenced row (for example the backend) was deleted concurrently. The statement had no effect."""


class Unstorable(PlaneError):
    """A value that a column cannot store, for example text with NUL. Nothing was stored."""


class Database:
    """A pool of connections. Each statement is a transaction of its own.

    A connection that was used without an error is kept for the next statement: taking it from asyncpg's pool and giving
    it back takes three times as long as a short statement.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], url: str) -> None:
        self._pool = pool
        # Taken from the pool, and free; the last one used is used first.
        self._kept: list[Any] = []
        # Uses that wait for the pool: nothing is kept from them.
        self._waiting = 0
        self._closing = False
        self._releases = OwnedTasks(_log_release_error)
        self.url = url

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Execute a statement and return all rows.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with _Use(self) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *args, timeout=STATEMENT_TIMEOUT_S)
            return rows

    async def fetchrow(self, statement: str, *args: Any) -> asyncpg.Record | None:
        """Execute a statement and return the first row, if any.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with _Use(self) as connection:
            row: asyncpg.Record | None = await connection.fetchrow(statement, *args, timeout=STATEMENT_TIMEOUT_S)
            return row

    async def execute(self, statement: str, *args: Any) -> None:
        """Execute a statement.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with _Use(self) as connection:
            await connection.execute(statement, *args, timeout=STATEMENT_TIMEOUT_S)

    async def close(self) -> None:
        """Close all connections after they are released, or after the statement timeout."""
        self._closing = True
        self._release_kept()
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        await self._releases.end()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Execute several statements in one transaction.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with _Use(self) as connection, connection.transaction():
            yield Transaction(connection)

    async def take(self) -> Any:
        """Return a connection for one use. It must be given to `keep` or `give_back`.

        Raises:
            TimeoutError, OSError, or an error of asyncpg.
        """
        while self._kept:
            connection = self._kept.pop()
            if _is_open(connection):
                return connection
            self.give_back(connection)
        self._waiting += 1
        try:
            # The pool's own timeout would start a task, and so let others run before this waiter.
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
                return await self._pool.acquire()
        finally:
            self._waiting -= 1

    def keep(self, connection: Any) -> None:
        """Keep a connection whose use succeeded for the next one."""
        if self._waiting or self._closing or len(self._kept) >= MAX_KEPT:
            self.give_back(connection)
        else:
            self._kept.append(connection)

    def give_back(self, connection: Any) -> None:
        """Return a connection to the pool, which waits for the end of a cancelled statement, in the background."""
        self._releases.start(self._pool.release(connection))

    async def expire(self) -> None:
        """Use no connection again that is open now: another host of the URL has become the primary."""
        await self._pool.expire_connections()
        self._release_kept()

    def _release_kept(self) -> None:
        kept, self._kept = self._kept, []
        for connection in kept:
            self.give_back(connection)


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        # The server has closed it, so the pool has it back already.
        return False


class _Use:
    """One use of a connection. Its errors become those of `Database`."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None

    async def __aenter__(self) -> Any:
        try:
            self._connection = await self._database.take()
        except Exception as error:
            await self._translate(error)
            raise
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            self._database.keep(self._connection)
            return
        if isinstance(error, (*_UNUSABLE, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)):
            # The server's end of file may arrive much later than its error, or never. Until then the pool would use
            # this connection again. If it has arrived, the pool has the connection back already.
            with suppress(asyncpg.InterfaceError):
                self._connection.terminate()
        self._database.give_back(self._connection)
        await self._translate(error)

    async def _translate(self, error: BaseException) -> None:
        """Raise the error of `Database` for an error of the driver, or return."""
        if isinstance(error, asyncpg.LockNotAvailableError):
            raise RowLocked(f"another session of the database holds a lock: {error_reason(error)}") from error
        if isinstance(error, (*_LOST, *_UNAVAILABLE)):
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                await self._database.expire()
            raise DatabaseUnavailable(f"the database does not respond: {error_reason(error)}") from error
        if isinstance(error, asyncpg.ForeignKeyViolationError):
            raise ReferencedRowDeleted(f"a referenced row was deleted concurrently: {error}") from error
        if isinstance(error, (asyncpg.DataError, UnicodeEncodeError)):
            raise Unstorable(f"the database cannot store this: {error}") from error


class Transaction:
    """An open transaction; see `Database.transaction`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Execute a statement and return all rows."""
        rows: list[asyncpg.Record] = await self._connection.fetch(statement, *args, timeout=STATEMENT_TIMEOUT_S)
        return rows


CANNOT_CONNECT = (
    OSError,
    ValueError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def cannot_connect(error: Exception) -> ConfigurationError:
    """Return the error for an operator if the first connection fails with one of `CANNOT_CONNECT`."""
    return ConfigurationError(
        f"cannot connect to the database of --db: {error_reason(error)}. "
        "It must be a reachable PostgreSQL 14 or newer, as postgresql://USER@HOST:PORT/NAME"
    )


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """Open a dedicated connection, for example for LISTEN.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError
    """
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
        url, timeout=CONNECT_TIMEOUT_S, **_CONNECT_OPTIONS
    )
    try:
        # A connection that listens is idle for any time. Not a setting of all sessions: poolers refuse those that they
        # do not know. Servers that are too old do not know it either; `migrate` and the doctor say that they are.
        if connection.get_server_version().major >= 14:
            await connection.execute("SET idle_session_timeout = 0", timeout=CONNECT_TIMEOUT_S)
    except BaseException:
        connection.terminate()
        raise
    return connection


_SERVER_SETTINGS: Final = {
    # Notifications have times as PostgreSQL prints them; those of Plane 0.5.5 are in UTC.
    "timezone": "UTC",
    "application_name": "plane",
    "jit": "off",
    # Statements settle races by waiting for a row and then seeing its new version. At other isolation levels, which may
    # be a database's default, they would fail.
    "default_transaction_isolation": "read committed",
    # The best plan of every statement is the same for all arguments, and planning the large ones costs as much as
    # running them.
    "plan_cache_mode": "force_generic_plan",
    # That plan uses indexes. It is kept as long as its connection: a plan that scans a table, because the table was
    # small when the controller started, would still do so when it is large.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # The locks of a controller that hangs, or whose network does, are released after this time.
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
    "statement_timeout": f"{SERVER_STATEMENT_TIMEOUT_S}s",
    "lock_timeout": f"{LOCK_TIMEOUT_MS}ms",
    "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
    "tcp_keepalives_count": str(KEEPALIVE_COUNT),
    "tcp_user_timeout": f"{USER_TIMEOUT_MS}ms",
}


class _Connection(_AnyConnection):
    """A connection whose socket detects a peer that has vanished."""

    __slots__ = ()

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            for option, value in _SOCKET_OPTIONS.items():
                if (number := getattr(socket, option, None)) is not None:
                    sock.setsockopt(socket.IPPROTO_TCP, number, value)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


_SOCKET_OPTIONS: Final = {
    "TCP_KEEPIDLE": KEEPALIVE_IDLE_S,
    "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_S,
    "TCP_KEEPCNT": KEEPALIVE_COUNT,
    "TCP_USER_TIMEOUT": USER_TIMEOUT_MS,
}

_CONNECT_OPTIONS: Final[dict[str, Any]] = {
    "server_settings": _SERVER_SETTINGS,
    "connection_class": _Connection,
    # Of several hosts in the URL, use the primary.
    "target_session_attrs": "read-write",
}


def _log_release_error(error: BaseException) -> None:
    log.warning("database connection closed after an error", error=error_reason(error))


async def _skip_reset(_: object) -> None:
    """Skip asyncpg's reset after each use, which is a round trip: no statement here leaves state in the session."""


@asynccontextmanager
async def open_database(url: str, *, pool_size: int = POOL_SIZE) -> AsyncIterator[Database]:
    """Open a pool of connections to ``url``, and close it when the block ends.

    Raises:
        ConfigurationError: cannot connect; the message has the reason.
    """
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=min(MIN_POOL_SIZE, pool_size),
            max_size=pool_size,
            timeout=CONNECT_TIMEOUT_S,
            **_CONNECT_OPTIONS,
            reset=_skip_reset,
        )
    except CANNOT_CONNECT as error:
        raise cannot_connect(error) from error
    database = Database(pool, url)
    try:
        yield database
    finally:
        await database.close()
