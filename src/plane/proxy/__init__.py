"""The proxy: what browsers reach. `running.running_proxy` starts one.

The data plane is asyncio protocols under uvloop: no task, future or timer on the path of a known token and a
pooled connection.

- A request's way: `entrances` (`handshake_port`) → `client_connection` (on `client_transport`) → `backend_search` →
  `upstream` → `tunnel`.
- What all connections share: `service`, with `route_lookup`, `connection_keeper`, `tunnels`, `open_files`, `answers`.
- Certificates: `tls` has the current one; `certificate_files` and `cert_keeper` put it there.
- Processes: `serving` in each; `workers` and `worker` where there are several; `handover` from an old one to a new one.
- The controller: `controller_link`.
"""
