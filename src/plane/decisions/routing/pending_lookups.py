"""Which questions about tokens are under way, and until when? One per token, however many requests wait.

Every wait ends (A23). With a controller it may take as long as a backend may take to start; without one it fails
soon, also when the connection broke while the question was under way. A question may be lost on the other side (a
controller that could not reach its database says nothing), so one that stays open is asked again, and one that
nobody waits for any more is forgotten. `plane.proxy.data_plane.route_lookup` sends and wakes.

Questions are bounded, and the one that has waited longest makes room: that is most likely one about a backend that does
not become ready, while others are answered within milliseconds. So no backend, however many tokens it has, keeps
others' questions from being asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.timing import STARTUP_TIMEOUT_S

__all__ = ["ANSWER_LIMIT_S", "ASK_AGAIN_S", "DISCONNECTED_LIMIT_S", "QUESTIONS_LIMIT", "PendingLookups"]

# Questions under way. Fewer than a controller answers at the same time for one proxy.
QUESTIONS_LIMIT = 8_000
# While there is no connection to a controller.
DISCONNECTED_LIMIT_S = 10.0
# With one: the controller answers when the backend is ready, or has ended.
ANSWER_LIMIT_S = STARTUP_TIMEOUT_S + 90
# A question that stays open is sent again after this. A lost one costs this much, not all of the above.
ASK_AGAIN_S = 10.0


@dataclass(slots=True)
class _Question:
    asked_at: float
    sent_at: float
    waiting: int = 1


class PendingLookups:
    """Questions by token. Times in seconds of the proxy's monotonic clock.

    Args:
        now: there is no connection since then.
    """

    def __init__(self, now: float, limit: int = QUESTIONS_LIMIT) -> None:
        self._limit = limit
        self._questions: dict[str, _Question] = {}
        self._disconnected_at: float | None = now

    def __len__(self) -> int:
        return len(self._questions)

    def join(self, token: str, now: float) -> bool:
        """Have a request wait. True: send the question, and call `make_room`; False: it is under way."""
        question = self._questions.get(token)
        if question is not None:
            question.waiting += 1
            return False
        self._questions[token] = _Question(asked_at=now, sent_at=now)
        return True

    def make_room(self) -> str | None:
        """Forget the question that has waited longest, if there are too many; returns its token: it has failed."""
        if len(self._questions) <= self._limit:
            return None
        token = next(iter(self._questions))
        del self._questions[token]
        return token

    def leave(self, token: str) -> None:
        """A request waits no more, whether it was answered or its client went away."""
        question = self._questions.get(token)
        if question is not None:
            question.waiting -= 1

    def answered(self, token: str) -> None:
        """The controller has answered."""
        self._questions.pop(token, None)

    def connected(self, now: float) -> list[str]:
        """There is a new connection; the questions to send on it."""
        self._disconnected_at = None
        for question in self._questions.values():
            question.sent_at = now
        return list(self._questions)

    def disconnected(self, now: float) -> None:
        """There is no connection any more."""
        self._disconnected_at = now

    def look(self, now: float) -> tuple[list[str], list[str], list[str]]:
        """What to send again, what has failed, and what nobody waits for.

        The latter two are forgotten, so that the next request asks anew. They are not forgotten before: so a client
        that comes and goes makes no more than one question per look.
        """
        again, failed, abandoned = [], [], []
        for token, question in list(self._questions.items()):
            if question.waiting <= 0:
                abandoned.append(token)
                del self._questions[token]
            elif now >= self._fails_at(question):
                failed.append(token)
                del self._questions[token]
            elif self._disconnected_at is None and now - question.sent_at >= ASK_AGAIN_S:
                again.append(token)
                question.sent_at = now
        return again, failed, abandoned

    def _fails_at(self, question: _Question) -> float:
        if self._disconnected_at is None:
            return question.asked_at + ANSWER_LIMIT_S
        return max(question.asked_at, self._disconnected_at) + DISCONNECTED_LIMIT_S
