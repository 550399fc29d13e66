"""The controller: a stateless HTTP and WebSocket server, the only part that talks to the database.

`running.start_controller` starts one; `app` has the route table.
"""
