"""Webhooks of the control API: a webhook sends events of the feed to a URL; Plane 0.5.5 does not have them.

Messages to receivers follow the Standard Webhooks specification (https://www.standardwebhooks.com); see
``docs/how-to/events-and-webhooks.md``.
"""

from __future__ import annotations

import msgspec

from plane.protocol.times import DbTime

__all__ = ["WebhookConfig", "WebhookInfo", "WebhookList", "WebhookSecret", "WebhookTest"]


class WebhookConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``PUT /ctrl/webhooks/{name}``.

    Attributes:
        url: where events are posted to.
        types: types of events; a star at the end stands for any rest. Default: all but calls of the API.
        rotate_secret: give a known webhook a new secret.
    """

    url: str
    types: list[str] = msgspec.field(default_factory=lambda: ["backend.*", "drone.*"])
    rotate_secret: bool = False


class WebhookInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook and its state.

    Attributes:
        enabled: events are delivered. Setting the webhook again enables it.
        disabled_reason: why they are not.
        cursor: events up to this one are delivered, abandoned, or pending.
        behind: events of its types after the cursor, among the next 10,000 events.
        pending: events that wait for a retry, or behind one of the same backend.
        delivered, abandoned: events that were delivered, and that were given up.
        failures: failed attempts since the last success.
        retry_at: the receiver is taken to be down, and is tried again at this time.
        last_error: of the last failed attempt.
    """

    name: str
    url: str
    types: list[str]
    enabled: bool
    disabled_reason: str | None
    created_at: DbTime
    cursor: int
    behind: int
    pending: int
    delivered: int
    abandoned: int
    failures: int
    retry_at: DbTime | None
    last_delivery_at: DbTime | None
    last_error: str | None
    last_error_at: DbTime | None


class WebhookList(msgspec.Struct, frozen=True):
    """``GET /ctrl/webhooks``, by name."""

    webhooks: list[WebhookInfo]


class WebhookSecret(msgspec.Struct, frozen=True, kw_only=True):
    """``PUT /ctrl/webhooks/{name}``. ``secret`` is shown only here, when it is new; receivers verify messages by it."""

    webhook: WebhookInfo
    secret: str | None

    def __repr__(self) -> str:
        return f"WebhookSecret(webhook={self.webhook!r}, secret=…)"


class WebhookTest(msgspec.Struct, frozen=True):
    """``POST /ctrl/webhooks/{name}/test``: whether the receiver took a message of the type ``webhook.test``."""

    delivered: bool
    error: str | None
