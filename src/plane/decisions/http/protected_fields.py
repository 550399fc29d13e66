"""Which request fields may a client not send? Those that backends trust because the proxy sets them, in any spelling.

A backend trusts `x-verified-username`, and frameworks take the address, scheme and host of a client from the forwarding
fields. CGI, WSGI and PHP servers give a field to the application under another name: `-` becomes `_`, and some of them
replace every character except letters and digits. For them `X.Verified~Username` is `X-Verified-Username`,
so all separators are equivalent here. `request_head` removes such fields, `chunks` such trailers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["FORWARDING_FIELDS", "IDENTITY_FIELDS", "MISSPELT_FIELDS", "PROTECTED_NAME", "is_protected"]

# A name that ends with `*` stands for itself and for all names that continue it after a separator.

# The identity of the user, which only the proxy knows.
IDENTITY_FIELDS: Final = ("x-verified-*",)

# The origin of the request, as proxies on its way report it (RFC 7239, and other fields in use). This
# proxy sends `x-forwarded-for`, `-proto` and `-prefix`. A client that sent another one could choose its own address.
FORWARDING_FIELDS: Final = (
    "forwarded-*",
    "x-forwarded-*",
    "x-real-ip",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "x-azure-clientip",
    "x-envoy-external-address",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-original-for",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-method",
    "x-original-path",
    "x-original-proto",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "x-scheme",
    "x-script-name",
    "x-url-scheme",
    "front-end-https",
)

# Fields that the proxy reads or removes under their usual name. In another spelling a backend might still obey them:
# two framings of one message, or `HTTP_PROXY` in the environment of a CGI program.
MISSPELT_FIELDS: Final = ("content-length", "transfer-encoding", "proxy-*")

_SEPARATOR: Final = r"[!#$%&'*+\-.^_`|~]"


def _expression(names: Iterable[Sequence[str]]) -> str:
    """Return an expression for names, given as lists of words. It tries each first word once."""
    by_word: dict[str, list[Sequence[str]]] = {}
    for first, *rest in names:
        by_word.setdefault(first, []).append(rest)
    return "(?:" + "|".join(word + _continuation(rests) for word, rests in by_word.items()) + ")"


def _continuation(rests: Sequence[Sequence[str]]) -> str:
    """Return an expression for the words that may follow a word. It does not backtrack: a name may have 64 KiB."""
    if ["*"] in rests:
        return rf"(?:{_SEPARATOR}[^:\r\n]*+)?"
    longer = [rest for rest in rests if rest]
    return f"{_SEPARATOR}++{_expression(longer)}" if longer else ""


# An expression for a complete name in lower case, before its colon or by itself.
PROTECTED_NAME: Final = (
    _expression(name.split("-") for name in (*IDENTITY_FIELDS, *FORWARDING_FIELDS, *MISSPELT_FIELDS)) + r"(?=:|\Z)"
).encode()

_PROTECTED: Final = re.compile(PROTECTED_NAME, re.IGNORECASE)


def is_protected(line: bytes) -> bool:
    """Return whether a field line, or a name by itself, has a name that a client may not send."""
    return _PROTECTED.match(line) is not None
