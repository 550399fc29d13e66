"""`plane admin webhook`: set, list, delete and test webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import AsJson, console, print_json, print_line, show, table, time_text
from plane.protocol.errors import PlaneError

if TYPE_CHECKING:
    from plane.client import WebhookInfo

__all__ = ["webhook"]

webhook = App(name="webhook", help="Post events to a URL of yours.", group_commands="Commands")


class MessageNotDelivered(PlaneError):
    """The receiver of a webhook did not take the test message."""


@webhook.command(name="set")
async def set_webhook(
    name: str,
    /,
    *,
    url: str,
    types: Annotated[list[str] | None, Parameter(name="--type", negative="")] = None,
    rotate_secret: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Make a webhook, or change one. The secret is printed only when it is new. A webhook that is off is enabled again.

    Example: plane admin webhook set billing --url https://example.com/plane --type backend.terminated

    Parameters
    ----------
    name
        Name of the webhook: a-z, 0-9 and -.
    url
        Where events are posted to.
    types
        Type of the events; a star at the end stands for any rest. May be given several times. Default: backend.* and
        drone.*.
    rotate_secret
        Give the webhook a new secret.
    """
    async with controller.client() as plane:
        made = await plane.set_webhook(name, url, types=types, rotate_secret=rotate_secret)
    if as_json:
        print_json(made)
        return
    print_line(f"Webhook {name} posts {', '.join(made.webhook.types)} to {made.webhook.url}")
    if made.secret is not None:
        print_line(f"Secret: {made.secret}")
        print_line("The secret is not shown again. The receiver needs it to verify messages.")


@webhook.command(name="list")
async def list_webhooks(*, as_json: AsJson = False, controller: ControllerOptions = DEFAULT_CONTROLLER) -> None:
    """List webhooks and the state of their deliveries.

    Example: plane admin webhook list
    """
    from rich.markup import escape

    async with controller.client() as plane:
        found = await plane.webhooks()
    if as_json:
        print_json(found)
    elif not found.webhooks:
        console().print("No webhooks")
    else:
        show(
            table(
                ("WEBHOOK", "STATE", "DELIVERED", "PENDING", "BEHIND", "GIVEN UP", "TYPES", "URL", "LAST ERROR"),
                (
                    (
                        each.name,
                        _state(each),
                        each.delivered,
                        each.pending,
                        each.behind,
                        each.abandoned,
                        escape(" ".join(each.types)),
                        escape(each.url),
                        _last_error(each),
                    )
                    for each in found.webhooks
                ),
            )
        )


def _state(found: WebhookInfo) -> str:
    from rich.markup import escape

    if not found.enabled:
        return f"[red]off: {escape(found.disabled_reason or '')}[/red]"
    return "[green]on[/green]" if found.retry_at is None else f"[yellow]retry at {time_text(found.retry_at)}[/yellow]"


def _last_error(found: WebhookInfo) -> str | None:
    from rich.markup import escape

    if found.last_error is None or found.last_error_at is None:
        return None
    return escape(f"{time_text(found.last_error_at)} {found.last_error}")


@webhook.command(name="delete")
async def delete(name: str, /, *, controller: ControllerOptions = DEFAULT_CONTROLLER) -> None:
    """Delete a webhook. What it has not delivered yet is never delivered.

    Example: plane admin webhook delete billing

    Parameters
    ----------
    name
        Name of the webhook.
    """
    async with controller.client() as plane:
        await plane.delete_webhook(name)
    print_line(f"Webhook {name} is deleted")


@webhook.command(name="test")
async def send_test(name: str, /, *, controller: ControllerOptions = DEFAULT_CONTROLLER) -> None:
    """Send a message of the type webhook.test now. Fails if the receiver does not take it.

    Example: plane admin webhook test billing

    Parameters
    ----------
    name
        Name of the webhook.
    """
    async with controller.client() as plane:
        result = await plane.test_webhook(name)
    if not result.delivered:
        raise MessageNotDelivered(f"the receiver of webhook {name} did not take the message: {result.error}")
    print_line(f"The receiver of webhook {name} took the message")
