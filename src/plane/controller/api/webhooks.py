"""Endpoints of webhooks: set, list, delete and test them. `plane.controller.webhooks` delivers."""

from __future__ import annotations

import base64
import secrets

from aiohttp import web

from plane.controller.api.audit import described
from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import json_response, read_json
from plane.controller.context import CONTEXT
from plane.controller.webhooks.sender import open_sender, test_message
from plane.database import webhooks
from plane.database.event_feed import record_call
from plane.decisions.access import Role
from plane.decisions.event_feed import expand_types
from plane.decisions.webhooks.delivery import Outcome
from plane.decisions.webhooks.target import check_webhook_name, check_webhook_url
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.event_feed import EventType
from plane.protocol.webhooks import WebhookConfig, WebhookInfo, WebhookList, WebhookSecret, WebhookTest

__all__ = ["WEBHOOK_ENDPOINTS"]

# Of the 24 to 64 bytes that the Standard Webhooks specification allows.
SECRET_BYTES = 32
# More than there are, so that each may be listed.
MAX_TYPES = 50


async def _set(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    name = check_webhook_name(request.match_info["name"])
    body = await read_json(request, WebhookConfig)
    url = check_webhook_url(body.url, context.settings.webhook_allowed_networks)
    if not 1 <= len(body.types) <= MAX_TYPES:
        raise ApiFailure(400, ApiErrorKind.OTHER, f"types: 1 to {MAX_TYPES} are needed, such as backend.*")
    expand_types(body.types)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    async with context.db.transaction() as transaction:
        created = await webhooks.set_webhook(transaction, name, url, body.types, secret, rotate=body.rotate_secret)
        if created is None:
            raise ApiFailure(
                400,
                ApiErrorKind.OTHER,
                f"there are {webhooks.MAX_WEBHOOKS} webhooks already, which is the limit; delete one first",
            )
        # A query may have a secret.
        shown = url.partition("?")[0]
        call = described(request, name=name, url=shown, types=body.types, rotate_secret=body.rotate_secret)
        await record_call(transaction, EventType.ADMIN_WEBHOOK_SET, call)
        (info,) = await webhooks.list_webhooks(transaction, name)
    context.webhooks.on_change()
    return json_response(WebhookSecret(webhook=info, secret=secret if created or body.rotate_secret else None))


async def _list(request: web.Request) -> web.Response:
    return json_response(WebhookList(await webhooks.list_webhooks(request.app[CONTEXT].db)))


async def _get(request: web.Request) -> web.Response:
    name = check_webhook_name(request.match_info["name"])
    found = await webhooks.list_webhooks(request.app[CONTEXT].db, name)
    if not found:
        raise _not_found()
    return json_response(found[0])


async def _delete(request: web.Request) -> web.Response:
    name = check_webhook_name(request.match_info["name"])
    async with request.app[CONTEXT].db.transaction() as transaction:
        if not await webhooks.delete(transaction, name):
            raise _not_found()
        await record_call(transaction, EventType.ADMIN_WEBHOOK_DELETE, described(request, name=name))
    return json_response(None)


async def _test(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    name = check_webhook_name(request.match_info["name"])
    async with context.db.transaction() as transaction:
        target = await webhooks.target(transaction, name)
        if target is None:
            raise _not_found()
        event = await record_call(transaction, EventType.ADMIN_WEBHOOK_TEST, described(request, name=name))
    message_id, message = test_message(event)
    async with open_sender(context.settings.webhook_allowed_networks) as sender:
        attempt = await sender.send(target, message_id, message)
    return json_response(WebhookTest(attempt.outcome is Outcome.DELIVERED, attempt.error))


def _not_found() -> ApiFailure:
    return ApiFailure(404, ApiErrorKind.NOT_FOUND, "Webhook does not exist")


WEBHOOK_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/webhooks",
        handle=_list,
        summary="All webhooks and their states",
        role=Role.ADMIN,
        response=WebhookList,
    ),
    Endpoint(
        method="PUT",
        path="/ctrl/webhooks/{name}",
        handle=_set,
        summary="Make a webhook, or change one; only a new secret is in the response",
        role=Role.ADMIN,
        body=WebhookConfig,
        response=WebhookSecret,
    ),
    Endpoint(
        method="GET",
        path="/ctrl/webhooks/{name}",
        handle=_get,
        summary="A webhook and its state",
        role=Role.ADMIN,
        response=WebhookInfo,
        refusals=(404,),
    ),
    Endpoint(
        method="DELETE",
        path="/ctrl/webhooks/{name}",
        handle=_delete,
        summary="Delete a webhook; what it has not delivered yet is never delivered",
        role=Role.ADMIN,
        refusals=(404,),
    ),
    Endpoint(
        method="POST",
        path="/ctrl/webhooks/{name}/test",
        handle=_test,
        summary="Send one message of the type webhook.test now, and respond with the result",
        role=Role.ADMIN,
        response=WebhookTest,
        refusals=(404,),
    ),
)
