"""Connections to PostgreSQL: how they are made, how long anything may take, and what a failure is called.

Everything that the controllers ask the database goes through `Database`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
    "Transaction",
    "Unstorable",
    "cannot_connect",
    "connect",
    "open_database",
]

# A request must fail within five seconds when the database is away: two to get a connection, three to use it.
ACQUIRE_LIMIT_S = 2.0
STATEMENT_LIMIT_S = 3.0
CONNECT_LIMIT_S = 10.0
# The server's own limits, for a client that hangs and watches none. A statement waits for a lock less long than its
# client waits for it, so that it is told why; the server gives up a statement soon after its client has.
LOCK_LIMIT_MS = 2_500
SERVER_STATEMENT_LIMIT_S = 5
# Between two statements of one transaction a controller does nothing but think.
IDLE_IN_TRANSACTION_LIMIT_S = 3
# A peer that is gone without a word is noticed within 25 s, while nothing is sent and while something is.
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
USER_TIMEOUT_MS = 25_000
POOL_SIZE = 16
# What was just used is given back in the background, so the next statement may need another.
LEAST_OPEN = 4

# The connection is of no more use. `asyncpg.InternalClientError`: the driver's own state does not fit what the server
# sends, as where a server that restarts ends a connection while a statement is on its way.
_UNUSABLE = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_LOST = (OSError, TimeoutError, *_UNUSABLE)
# Raised by a server that is starting, stopping, out of something, or no longer the primary of its kind; or by one of
# the limits of `_SERVER_SETTINGS`.
_NOT_NOW = (
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.LockNotAvailableError,
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
    """The database did not answer; what was asked may or may not have been done."""


class ReferencedRowDeleted(PlaneError):
    """What this refers to, as a backend, was deleted meanwhile. Nothing was done; who looks again finds it gone."""


class Unstorable(PlaneError):
    """A value that no column can hold, as text with NUL. Nothing was stored."""


class Database:
    """A pool of connections. Statements are whole transactions unless they fail."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], url: str) -> None:
        self._pool = pool
        self._giving_back = OwnedTasks(_not_given_back)
        self.url = url

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """All rows of one statement.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with self._connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *args, timeout=STATEMENT_LIMIT_S)
            return rows

    async def fetchrow(self, statement: str, *args: Any) -> asyncpg.Record | None:
        """The first row of one statement, if any.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with self._connection() as connection:
            row: asyncpg.Record | None = await connection.fetchrow(statement, *args, timeout=STATEMENT_LIMIT_S)
            return row

    async def execute(self, statement: str, *args: Any) -> None:
        """Run one statement.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with self._connection() as connection:
            await connection.execute(statement, *args, timeout=STATEMENT_LIMIT_S)

    async def close(self) -> None:
        """End all connections, once they are given back; in any case after a while."""
        try:
            async with asyncio.timeout(STATEMENT_LIMIT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        await self._giving_back.end()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Several statements, all or nothing.

        Raises:
            DatabaseUnavailable, ReferencedRowDeleted, Unstorable
        """
        async with self._connection() as connection, connection.transaction():
            yield Transaction(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            # A limit of the pool's own would be a task of its own, and let others run before what waits here.
            async with asyncio.timeout(ACQUIRE_LIMIT_S):
                connection = await self._pool.acquire()
            try:
                yield connection
            except (*_UNUSABLE, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError):
                # The server's end of file may come much later than its error, if it comes at all: until then the pool
                # would hand this connection out again and again.
                connection.terminate()
                raise
            finally:
                # Whoever has the answer goes on with it at once.
                self._giving_back.start(self._pool.release(connection))
        except (*_LOST, *_NOT_NOW) as error:
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                # Another of the URL's hosts has taken over: look for it.
                await self._pool.expire_connections()
            raise DatabaseUnavailable(f"the database does not answer: {error_reason(error)}") from error
        except asyncpg.ForeignKeyViolationError as error:
            raise ReferencedRowDeleted(f"something that this refers to was deleted meanwhile: {error}") from error
        except (asyncpg.DataError, UnicodeEncodeError) as error:
            raise Unstorable(f"the database cannot hold this: {error}") from error


class Transaction:
    """An open transaction; see `Database.transaction`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """All rows of one statement."""
        rows: list[asyncpg.Record] = await self._connection.fetch(statement, *args, timeout=STATEMENT_LIMIT_S)
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
    """What to tell an operator when the first connection fails with one of `CANNOT_CONNECT`."""
    return ConfigurationError(
        f"cannot connect to the database of --db: {error_reason(error)}. "
        "It must be a reachable PostgreSQL 14 or newer, as postgresql://USER@HOST:PORT/NAME"
    )


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection of its own, as LISTEN needs.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError
    """
    return await asyncpg.connect(url, timeout=CONNECT_LIMIT_S, **_WHERE_AND_HOW)


_SERVER_SETTINGS: Final = {
    # Notifications carry times as PostgreSQL prints them; the original's are in UTC.
    "timezone": "UTC",
    "application_name": "plane",
    "jit": "off",
    # Races are settled by statements that wait for a row and then see what it has become; a database whose default is
    # another level would have them fail.
    "default_transaction_isolation": "read committed",
    # Every statement here is best answered by the same plan whatever its arguments; planning the large ones anew each
    # time costs as much as running them.
    "plan_cache_mode": "force_generic_plan",
    # And it goes by indexes, row by row. Such a plan is kept as long as its connection: one that reads a whole table,
    # since there was little in it when the controller started, would do so when there is much.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # What a controller that hangs, or whose network does, may hold on to: its locks are free after this.
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_LIMIT_S}s",
    "statement_timeout": f"{SERVER_STATEMENT_LIMIT_S}s",
    "lock_timeout": f"{LOCK_LIMIT_MS}ms",
    "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
    "tcp_keepalives_count": str(KEEPALIVE_COUNT),
    "tcp_user_timeout": f"{USER_TIMEOUT_MS}ms",
}


class _Connection(_AnyConnection):
    """A connection whose socket notices a peer that is gone without a word."""

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

_WHERE_AND_HOW: Final[dict[str, Any]] = {
    "server_settings": _SERVER_SETTINGS,
    "connection_class": _Connection,
    # Of several hosts in the URL, the one that can be written to.
    "target_session_attrs": "read-write",
}


def _not_given_back(error: BaseException) -> None:
    log.warning("a connection to the database was ended", error=error_reason(error))


async def _keep_as_it_is(_: object) -> None:
    """asyncpg would reset a connection after each use, one more trip; no statement here leaves anything to reset."""


@asynccontextmanager
async def open_database(url: str, *, pool_size: int = POOL_SIZE) -> AsyncIterator[Database]:
    """A pool on ``url``, open until the block ends.

    Raises:
        ConfigurationError: cannot connect; says why.
    """
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=min(LEAST_OPEN, pool_size),
            max_size=pool_size,
            timeout=CONNECT_LIMIT_S,
            **_WHERE_AND_HOW,
            reset=_keep_as_it_is,
        )
    except CANNOT_CONNECT as error:
        raise cannot_connect(error) from error
    database = Database(pool, url)
    try:
        yield database
    finally:
        await database.close()
