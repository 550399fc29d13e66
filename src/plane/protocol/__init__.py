"""The wire protocol: the types of all messages between Plane's parts.

Nothing here does I/O, reads a clock or logs. The messages are described in ``docs/reference/protocol``, and recorded in
``tests/contract/golden``.

Conventions of all modules of this package:

- Optional fields are ``None`` when absent and are sent as ``null``; on input absent and ``null`` are the same. Fields
  that are *omitted when absent* are ``UNSET`` by default.
- Unknown fields are ignored on input.
- Enumerations with content ("externally tagged": ``{"Variant": content}``) derive from `codec.Variants`.
- Names are plain strings inside messages, which Plane 0.5.5 does not check there either. `names` has the checks for the
  places where names are made: flags, handshakes and connect requests.
"""
