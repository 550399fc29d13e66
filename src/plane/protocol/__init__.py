"""What is said: every type that travels between Plane's parts, and nothing else.

Nothing here does I/O, reads a clock or logs. The shapes are those of page 2 of the specification
("The wire") and of the recordings in ``tests/contract/golden``.

Conventions, for all modules of this package:

- Optional fields are ``None`` when absent and are sent as ``null``; on input absent and ``null`` are the
  same. Fields that are *omitted when absent* are ``UNSET`` by default.
- Unknown fields are ignored on input.
- Enumerations with content ("externally tagged": ``{"Variant": content}``) derive from `codec.Variants`.
- Names are plain strings inside messages (the original does not check them there); `names` has the checks
  for the places where they are made: flags, handshakes and connect requests.
"""
