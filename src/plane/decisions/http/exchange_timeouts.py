"""How long may an exchange wait in a state before it is ended? Called by `plane.decisions.http.exchange`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from plane.decisions.http.exchange_states import State

__all__ = ["ExchangeTimeouts"]

# In Python 3.11 the access to a member of an enumeration takes 70 ns to 90 ns. A body that its client reads slowly
# restarts its timeout several times per MiB.
_IDLE: Final = State.IDLE
_TUNNEL: Final = State.TUNNEL
_CLOSING: Final = State.CLOSING
_CLOSED: Final = State.CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTimeouts:
    """How long an exchange waits, in seconds.

    Attributes:
        head_s: for the end of a request's head, and for the first request of a connection.
        idle_s: for the next request.
        body_s: for a byte of a body, or of a response head that has begun. Waiting for a response does not count.
        half_closed_s: for a byte of the response to a client that has ended its direction. Most such clients are gone,
            which only a write shows: with a longer time, a quiet stream would keep its backend in use.
        closing_s: for the client to take what was written to it before the connection closes.
        linger_s: for a client that is still sending to notice that it has its response.
        first_request_s: for the first request of a client that connected just before the proxy stopped.
    """

    head_s: float
    idle_s: float
    body_s: float
    half_closed_s: float
    closing_s: float
    linger_s: float
    first_request_s: float

    def transfer_s(self, *, client_ended: bool) -> float:
        """Return how long no byte may be transferred that could be.

        A client that has ended its direction is there, or a write will show that it is not.
        """
        return self.closing_s if client_ended else self.body_s

    def timeout_s(
        self,
        state: State,
        *,
        lingers: bool,
        client_paused: bool,
        client_ended: bool,
        sends_body: bool,
        response_head_begun: bool,
    ) -> float | None:
        """Return how long ``state`` may last without a byte. None: it is not limited.

        Args:
            lingers: the client has its response, and is still sending.
            client_paused: the client does not read what was sent to it.
            client_ended: the client sends no more.
            sends_body: the backend gets the request's body, and it is not complete.
            response_head_begun: a part of the response's head has arrived, and its end has not.
        """
        if state is _CLOSED or state is _TUNNEL:
            return None
        if state is _CLOSING:
            return self.linger_s if lingers else self.closing_s
        if client_paused or sends_body:
            return self.transfer_s(client_ended=client_ended)
        if state is _IDLE:
            return self.idle_s
        if client_ended:
            return self.half_closed_s
        return self.body_s if response_head_begun else None
