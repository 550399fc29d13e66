"""Encodes and decodes all messages as JSON; the only module that calls the JSON library.

`decode` reports every defect of its input as a `MessageError` with the path of the field.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable
from typing import Annotated, Any, TypeVar, cast

import msgspec

from plane.protocol import times
from plane.protocol.errors import MessageError

__all__ = [
    "Int32",
    "Int64",
    "Raw",
    "UInt8",
    "UInt16",
    "Variants",
    "convert",
    "decode",
    "encode",
    "redacted_repr",
    "to_builtins",
]


Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UInt8 = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)]
UInt16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]

# A value that is JSON already; `encode` copies it.
Raw = msgspec.Raw

T = TypeVar("T")

_encoder = msgspec.json.Encoder(enc_hook=times.to_json)
_PATH = re.compile(r"^(?P<reason>.*?) - at `(?P<path>[^`]*)`$", re.S)


class Variants(
    msgspec.Struct,
    rename="pascal",
    omit_defaults=True,
    forbid_unknown_fields=True,
    frozen=True,
    kw_only=True,
):
    """Base of externally tagged enumerations: ``{"Variant": content}``.

    A subclass has one optional field per variant, each ``UNSET`` by default; exactly one is set.
    `content` is the value of that field, for ``match``.
    """

    def __post_init__(self) -> None:
        # This runs for every message, and is the fastest way to count.
        if [getattr(self, name) for name in self.__struct_fields__].count(msgspec.UNSET) != len(
            self.__struct_fields__
        ) - 1:
            names = ", ".join(field.encode_name for field in msgspec.structs.fields(self))
            raise ValueError(f"Expected exactly one of {names}")

    @property
    def content(self) -> Any:
        """The value of the variant that is set."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not msgspec.UNSET:
                return value
        raise AssertionError("unreachable: __post_init__ saw exactly one variant")


def redacted_repr(message: msgspec.Struct, *secret: str) -> str:
    """Return the ``repr`` of a message without the values of its ``secret`` fields, since it may be logged."""
    shown = (f"{name}={'…' if name in secret else repr(getattr(message, name))}" for name in message.__struct_fields__)
    return f"{type(message).__name__}({', '.join(shown)})"


def encode(message: Any) -> bytes:
    """Return the message as JSON, in UTF-8 and without spaces."""
    return _encoder.encode(message)


def to_builtins(message: Any) -> Any:
    """Return the message as the dicts, lists and scalars that `encode` would write."""
    return msgspec.to_builtins(message, enc_hook=times.to_json)


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=times.from_json)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode a ``kind`` from JSON.

    Raises:
        MessageError: not JSON, nested too deeply, or of another shape.
    """
    try:
        value: T = _decoder(cast(Hashable, kind)).decode(data)
    except msgspec.ValidationError as error:
        raise _message_error(error) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MessageError(f"not JSON: {str(error).removeprefix('JSON is malformed: ')}", is_json=False) from None
    except RecursionError:
        raise MessageError("nested too deeply", is_json=False) from None
    return value


def convert(value: Any, kind: type[T]) -> T:
    """Convert a ``kind`` from dicts, lists and scalars, as decoded from JSON.

    Raises:
        MessageError: of another shape.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=times.from_json)
    except msgspec.ValidationError as error:
        raise _message_error(error) from None


def _message_error(error: msgspec.ValidationError) -> MessageError:
    match = _PATH.match(str(error))
    return MessageError(match["reason"], match["path"]) if match else MessageError(str(error))
