"""The proxy: what browsers reach. `running.running_proxy` starts one.

The data plane is asyncio protocols under uvloop: no task, future or timer on the path of a known token and a
pooled connection.
"""
