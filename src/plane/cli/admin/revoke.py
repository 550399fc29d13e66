"""`plane admin revoke`."""

from __future__ import annotations

from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import console

__all__ = ["revoke"]


async def revoke(
    backend: str,
    /,
    *,
    user: str,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Revoke a user's tokens for a backend, and close the connections opened with them.

    Example: plane admin revoke k6xqveyu5dhqvw --user ada

    Parameters
    ----------
    backend
        Name of the backend.
    user
        User of the connect requests that returned the tokens.
    """
    async with controller.client() as plane:
        # The call itself succeeds with any name, as in 0.5.5; a mistyped one must not look like a revocation.
        await plane.status(backend)
        await plane.revoke(backend, user)
        console().print(f"The tokens of {user} for backend {backend} are revoked", markup=False)
