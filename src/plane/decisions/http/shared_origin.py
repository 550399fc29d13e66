"""Which response fields may a backend not send that shares its origin with other backends?

Backends without a subdomain are paths of one origin, `/{token}/`. A browser treats them as one site: their scripts
share cookies and storage, and a proxy cannot separate them. A backend that is not trusted needs a subdomain of its own
(docs/concepts/security.md). But the proxy can prevent that one response changes how the browser treats all paths of
the origin. `response_head` drops the fields that do so, unless applications need them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["DROPPED_FIELDS", "FIELDS", "OriginField", "own_scope"]


class OriginField(NamedTuple):
    """A field whose effect is not limited to its response, and whether it is dropped.

    Attributes:
        name: in lower case.
        dropped: whether the proxy drops it where backends share an origin.
        reason: why, as in the documentation.
    """

    name: str
    dropped: bool
    reason: str


FIELDS: Final = (
    OriginField(
        "service-worker-allowed",
        True,
        "A service worker of one backend could respond for all. It would see every visit, tokens included.",
    ),
    OriginField("clear-site-data", True, "It deletes the cookies, caches and storage of all backends."),
    OriginField("nel", True, "The browser would report the URLs of all requests, tokens included, to any address."),
    OriginField("report-to", True, "It names the address that `NEL` reports to."),
    OriginField(
        "alt-svc", True, "It leads all requests to another port or host. A backend does not know its front end."
    ),
    OriginField("use-as-dictionary", True, "It can match the paths of all backends, and then adds fields to requests."),
    OriginField(
        "secure-session-registration",
        True,
        "It binds a session to the whole origin: the browser holds back requests to all backends until one renews it.",
    ),
    OriginField("sec-session-registration", True, "The same, in browsers that know only its former name."),
    OriginField(
        "set-cookie",
        False,
        "Applications need it, and without the token they cannot name their path. Scripts can set the same cookies.",
    ),
    OriginField(
        "strict-transport-security",
        False,
        "Applications send it for the whole host, and it protects tokens. But one backend can withdraw it.",
    ),
    OriginField(
        "www-authenticate",
        False,
        "Applications need it. But a browser sends a password to all backends that name the same realm.",
    ),
    OriginField("accept-ch", False, "It only adds client hints to requests."),
)

DROPPED_FIELDS: Final = frozenset(field.name.encode() for field in FIELDS if field.dropped)


def own_scope(token: str) -> bytes:
    """Return a field line, begun by CR LF, that limits a service worker whose script is `/{token}` to `/{token}/`.

    A service worker may respond for the folder of its script. That of `/{token}`, without a slash at the end, is `/`. A
    browser that takes the script from its cache obeys the line too.
    """
    return f"\r\nService-Worker-Allowed: /{token}/".encode()
