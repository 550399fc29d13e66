"""The proxy, which browsers connect to. `plane.proxy.server` starts one.

The data plane consists of asyncio protocols under uvloop. A request for a known token with a free connection to its
backend needs no task, future or timer.

- The path of a request: `listeners` → `data_plane.client_connection` → `plane.decisions.http.exchange`, which decides →
  `data_plane.dispatch` → `data_plane.upstream`; after an upgrade `data_plane.tunnel`.
- What the connections of a proxy share: `service`, which makes a `data_plane.connection_context` of it.
- Certificates: `certificates.tls` has the current one; `certificates.files` and `certificates.renewer` replace it.
- Processes: `listeners.serving` in each; `processes.workers` and `processes.worker` where there are several;
  `processes.hot_restart` from an old process to a new one.
- The controller: `controller_link`.
"""
