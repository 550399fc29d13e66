"""`plane admin put-dummy-dns`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.arguments import cluster_name
from plane.cli.output import console
from plane.protocol.errors import ConfigurationError, PlaneError
from plane.protocol.names import Prefix
from plane.random_ids import random_name

if TYPE_CHECKING:
    from plane.protocol.proxy_messages import MessageFromProxy, MessageToProxy
    from plane.transport.node_socket import NodeSocket

__all__ = ["put_dummy_dns"]

TIMEOUT_S = 15.0


async def put_dummy_dns(*, cluster: str, controller: ControllerOptions = DEFAULT_CONTROLLER) -> None:
    """Lease a cluster's certificate and set a TXT value, to test DNS from outside; both last for a minute.

    Example: plane admin put-dummy-dns --cluster plane.example.com, then: dig TXT _acme-challenge.plane.example.com

    Parameters
    ----------
    cluster
        Cluster whose challenge gets the value.
    """
    import asyncio

    from plane.cli.logs import set_up_logs
    from plane.protocol.proxy_messages import MessageToProxy
    from plane.tasks import end_tasks
    from plane.transport.node_socket import NodeConnector

    set_up_logs("error")
    url = controller.url()
    name = random_name(Prefix.PROXY)
    value = f"Dummy message from {name}"
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def session(socket: NodeSocket[MessageToProxy, MessageFromProxy]) -> None:
        try:
            await _set_value(socket, value)
        except PlaneError as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    connector = NodeConnector(
        url,
        f"/ctrl/c/{cluster_name(cluster)}/proxy-socket",
        name,
        MessageToProxy,
        session,
    )
    connecting = asyncio.create_task(connector.run())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await done
    except TimeoutError:
        raise ConfigurationError(f"controller at {url.base} does not respond within {TIMEOUT_S:.0f} s") from None
    finally:
        await end_tasks([connecting])
    console().print(f"TXT value set: {value}", markup=False)


async def _set_value(socket: NodeSocket[MessageToProxy, MessageFromProxy], value: str) -> None:
    from plane.protocol.proxy_messages import (
        CertLeaseResponse,
        CertManagerResponse,
        MessageFromProxy,
        SetTxtRecord,
        SetTxtRecordRequest,
    )

    await socket.send(MessageFromProxy(cert_manager_request="CertLeaseRequest"))
    async for message in socket.messages():
        if not isinstance(message.content, CertManagerResponse):
            continue
        response = message.content.content
        if not response.accepted:
            raise ConfigurationError("another proxy has the lease of this cluster's certificate; try again in a minute")
        if not isinstance(response, CertLeaseResponse):
            return
        request = SetTxtRecordRequest(set_txt_record=SetTxtRecord(value))
        await socket.send(MessageFromProxy(cert_manager_request=request))
    raise ConfigurationError("the controller closed the connection; try again")
