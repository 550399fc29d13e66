"""The controller: a stateless HTTP and WebSocket server, the only role that talks to the database.

`server.start_controller` runs one; `app` has the table of endpoints.
"""
