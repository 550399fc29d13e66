"""Which path and which header fields does a backend get? The rules are in `docs/reference/protocol/proxy.md`.

`plane.proxy.data_plane.dispatch` forwards what is written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from plane.decisions.http.request_head import RequestHead, RequestRefused
from plane.decisions.http.shared_origin import own_scope
from plane.decisions.routing.host_names import normal_host
from plane.protocol import codec
from plane.protocol.addresses import parse_socket_address
from plane.protocol.errors import MessageError
from plane.protocol.proxy_messages import RouteInfo

__all__ = [
    "Route",
    "could_be_token",
    "forwarded_head",
    "host_belongs_to",
    "make_route",
    "origin_form",
    "split_target",
]

# That of the database column. Random tokens have 43 or 45 characters.
TOKEN_LIMIT: Final = 256
# A search for a byte takes a tenth of the time of a search for a string of one byte.
_QUESTION_MARK: Final = ord("?")


@dataclass(slots=True, frozen=True)
class Route:
    """Where a token leads, with the header fields that are the same for all requests."""

    token: str
    backend_id: str
    host: str
    port: int
    # The only valid Host, in lower case and without ":443".
    accepted_host: bytes
    # Field lines that the backend gets, each begun by CR LF.
    request_fields: bytes
    # The same, with a field for the prefix that the proxy removes from the path, if it removes one.
    path_request_fields: bytes
    # Field lines that the client gets.
    response_fields: bytes
    # Those of a response for a target without a slash at `slash_at`, after the token.
    bare_response_fields: bytes
    slash_at: int
    # Whether the backend has no subdomain, and so shares its origin with others.
    shares_origin: bool
    # ``/{token}``, if `Location` and cookie paths of the backend are moved below it; else empty.
    rewritten_prefix: bytes
    # Whether the first visit moves the token into a cookie (`token_cookie`).
    token_in_cookie: bool
    # Field lines that the client gets where the token is in the cookie.
    cookie_response_fields: bytes
    # Whose token it is.
    user: str | None
    # When the token expires, by the proxy's clock; None: never.
    expires_at: float | None


def make_route(token: str, info: RouteInfo, server_field: bytes, expires_at: float | None = None) -> Route:
    """Return the route of ``token``, from a controller's response.

    Args:
        server_field: the line ``\\r\\nserver: …``.
        expires_at: when the token expires, by the proxy's clock; None: never.

    Raises:
        MessageError: the address is malformed, or a value cannot be a header field.
    """
    host, port = parse_socket_address(info.address)
    fields = []
    if info.user is not None:
        fields.append(("x-verified-username", info.user))
    if info.user_data is not None:
        fields.append(("x-verified-user-data", _ascii_json(info.user_data)))
    fields.append(("x-verified-backend", info.backend_id))
    fields.append(("x-verified-secret", info.secret_token))
    for name, value in fields:
        if not value.isascii() or not value.replace("\t", "").isprintable():
            raise MessageError(f"the value of {name} has characters that no header field can carry")
    accepted = f"{info.subdomain}.{info.cluster}" if info.subdomain else info.cluster
    response_fields = f"\r\nx-plane-backend-id: {info.backend_id}".encode() + server_field
    shares_origin = not info.subdomain
    request_fields = "".join(f"\r\n{name}: {value}" for name, value in fields).encode()
    # A static token stays in the path, so the application needs no prefix.
    prefix_field = b"" if token.startswith("s.") else f"\r\nx-forwarded-prefix: /{token}".encode()
    return Route(
        token=token,
        backend_id=info.backend_id,
        host=host,
        port=port,
        accepted_host=normal_host(accepted.encode()),
        request_fields=request_fields,
        path_request_fields=request_fields + prefix_field,
        response_fields=response_fields,
        bare_response_fields=response_fields + own_scope(token) if shares_origin else response_fields,
        slash_at=len(token) + 1,
        shares_origin=shares_origin,
        rewritten_prefix=f"/{token}".encode() if info.rewrite_prefix is True else b"",
        # On a shared origin every backend would get the cookie's requests.
        token_in_cookie=info.token_in_cookie is True and not shares_origin,
        # A shared cache must not give one user's response to another: the address no longer distinguishes them.
        cookie_response_fields=response_fields + b"\r\nVary: Cookie",
        user=info.user,
        expires_at=expires_at,
    )


def _ascii_json(value: object) -> str:
    """Return JSON with all characters beyond ASCII escaped, since header fields are ASCII."""
    text = codec.encode(value).decode()
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        c if c.isascii() and c != "\x7f" else "".join(f"\\u{unit:04x}" for unit in _utf16_units(c)) for c in text
    )


def _utf16_units(character: str) -> list[int]:
    encoded = character.encode("utf-16-be")
    return [int.from_bytes(encoded[n : n + 2]) for n in range(0, len(encoded), 2)]


def host_belongs_to(host: bytes, accepted: bytes) -> bool:
    """Return whether the Host of a request is the accepted one."""
    return host == accepted or normal_host(host) == accepted


def origin_form(head: RequestHead) -> bytes:
    """Return the target as ``/path?query``.

    Raises:
        RequestRefused: the target has another form. An absolute one is accepted if its authority equals Host.
    """
    target = head.target
    if target.startswith(b"/"):
        return target
    if head.method == b"CONNECT":
        raise RequestRefused(501, "CONNECT is not served")
    lower = target.lower()
    for scheme in (b"http://", b"https://"):
        if lower.startswith(scheme):
            authority, slash, path = target[len(scheme) :].partition(b"/")
            if authority.lower() != head.fields.authority.lower():
                raise RequestRefused(400, "target and Host differ")
            return slash + path if slash else b"/"
    raise RequestRefused(400, "the target must be a path")


def could_be_token(token: str) -> bool:
    """Return whether a token may exist. Others are neither looked up nor cached."""
    return 0 < len(token) <= TOKEN_LIMIT and token.isascii()


def split_target(target: bytes) -> tuple[str, bytes]:
    """Return the token in the first segment, and the target that the backend gets.

    ``/{token}/rest?query`` becomes ``/rest?query``; the target of a static token is unchanged.
    """
    end = target.find(b"/", 1)
    if _QUESTION_MARK in target and (query := target.find(b"?", 1)) > 0 and (query < end or end < 0):
        end = query
    if end < 0:
        end = len(target)
    token = target[1:end].decode("latin-1")
    if token.startswith("s."):
        return token, target
    rest = target[end:]
    return token, rest if rest.startswith(b"/") else b"/" + rest


def forwarded_head(
    head: RequestHead,
    forwarded_target: bytes,
    route: Route,
    client_fields: bytes,
    *,
    by_cookie: bool = False,
) -> bytes:
    """Return the head that the backend gets, its empty line included.

    ``head``: of the request, with its target in origin form.
    ``client_fields`` are the lines about the client's connection (``x-forwarded-…``), each begun by CR LF.
    ``by_cookie``: the token is in a cookie, and not in the request's target.
    """
    original_target = head.target
    upgrade = head.fields.upgrade
    if upgrade is not None:
        version = b" HTTP/1.1"
        connection = b"\r\nConnection: Upgrade\r\nUpgrade: " + upgrade
    elif head.http_1_0:
        # So that the backend's response suits this client.
        version = b" HTTP/1.0"
        connection = b""
    else:
        version = b" HTTP/1.1"
        connection = b""
    return b"".join(
        (
            head.method,
            b" ",
            forwarded_target,
            version,
            head.fields.lines,
            route.request_fields if by_cookie else route.path_request_fields,
            b"\r\nx-verified-path: ",
            original_target.partition(b"?")[0] if _QUESTION_MARK in original_target else original_target,
            client_fields,
            connection,
            b"\r\n\r\n",
        )
    )
