"""Messages between proxies and controllers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol import codec
from plane.protocol.codec import Variants

__all__ = [
    "BackendRemoved",
    "CertLeaseResponse",
    "CertManagerRequest",
    "CertManagerResponse",
    "MessageFromProxy",
    "MessageToProxy",
    "RouteInfo",
    "RouteInfoRequest",
    "RouteInfoRequests",
    "RouteInfoResponse",
    "RouteInfoResponses",
    "SetTxtRecord",
    "SetTxtRecordRequest",
    "SetTxtRecordResponse",
    "TokensRevoked",
]


class RouteInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The route of a connection token. ``secret_token`` is "" for static tokens.

    ``expires_in_ms``: for how long the token is valid, from the response on; absent for static tokens and from Plane
    0.5.5. ``rewrite_prefix`` and ``token_in_cookie``: like in the spawn config, absent unless true.
    """

    backend_id: str
    address: str
    secret_token: str
    cluster: str
    user: str | None = None
    user_data: Any = None
    subdomain: str | None = None
    expires_in_ms: int | UnsetType | None = UNSET
    rewrite_prefix: bool | UnsetType = UNSET
    token_in_cookie: bool | UnsetType = UNSET

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "secret_token", "user_data")


class RouteInfoRequest(msgspec.Struct, frozen=True):
    """Requests the route of a token."""

    token: str

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "token")


class RouteInfoResponse(msgspec.Struct, frozen=True):
    """``route_info`` is ``None`` for a token without a route."""

    token: str
    route_info: RouteInfo | None = None

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "token")


class RouteInfoRequests(msgspec.Struct, frozen=True):
    """Requests the routes of several tokens (extension "routes")."""

    tokens: tuple[str, ...]

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "tokens")


class RouteInfoResponses(msgspec.Struct, frozen=True):
    """Several responses, in any order, also to requests of different messages (extension "routes")."""

    responses: tuple[RouteInfoResponse, ...]


class SetTxtRecord(msgspec.Struct, frozen=True):
    """The value for the cluster's ACME challenge."""

    txt_value: str


class SetTxtRecordRequest(Variants, frozen=True, kw_only=True):
    """``{"SetTxtRecord": {…}}``, the only certificate request with content."""

    set_txt_record: SetTxtRecord | UnsetType = UNSET


CertManagerRequest = Literal["CertLeaseRequest", "ReleaseCertLease"] | SetTxtRecordRequest


class CertLeaseResponse(msgspec.Struct, frozen=True):
    """Whether this proxy got the lease for ordering the certificate."""

    accepted: bool


class SetTxtRecordResponse(msgspec.Struct, frozen=True):
    """Whether the value was set, which requires the lease."""

    accepted: bool


class CertManagerResponse(Variants, frozen=True, kw_only=True):
    """The response to a certificate request; a release has none."""

    cert_lease_response: CertLeaseResponse | UnsetType = UNSET
    set_txt_record_response: SetTxtRecordResponse | UnsetType = UNSET


class BackendRemoved(msgspec.Struct, frozen=True):
    """The proxy must drop all routes to this backend."""

    backend: str


class TokensRevoked(msgspec.Struct, frozen=True):
    """The proxy must drop the routes of these tokens and close their connections (extension "revocation").

    ``user``: whose tokens they are. Those that have expired are not listed, but have connections; UNSET: unknown.
    """

    backend: str
    tokens: tuple[str, ...]
    user: str | UnsetType = UNSET

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "tokens")


class MessageFromProxy(Variants, frozen=True, kw_only=True):
    """A message from a proxy. ``keep_alive`` is a backend's id."""

    route_info_request: RouteInfoRequest | UnsetType = UNSET
    route_info_requests: RouteInfoRequests | UnsetType = UNSET
    keep_alive: str | UnsetType = UNSET
    cert_manager_request: CertManagerRequest | UnsetType = UNSET


class MessageToProxy(Variants, frozen=True, kw_only=True):
    """A message to a proxy."""

    route_info_response: RouteInfoResponse | UnsetType = UNSET
    route_info_responses: RouteInfoResponses | UnsetType = UNSET
    cert_manager_response: CertManagerResponse | UnsetType = UNSET
    backend_removed: BackendRemoved | UnsetType = UNSET
    tokens_revoked: TokensRevoked | UnsetType = UNSET
