"""The proxy: what browsers reach. `running.start_proxy` starts one.

The data plane is asyncio protocols under uvloop: no task, future or timer on the path of a known token and a
pooled connection.

- A request's way: `entry_points` (`handshake_port`) → `client_connection` (on `client_transport`) → `dispatch` →
  `upstream` → `tunnel`.
- What all connections share: `service`, with `route_lookup`, `keepalive_reporter`, `tunnels`, `open_files`,
`responses`.
- Certificates: `tls` has the current one; `certificates.files` and `renewer` put it there.
- Processes: `serving` in each; `workers` and `worker` where there are several; `hot_restart` from an old one to a new
one.
- The controller: `controller_link`.
"""
