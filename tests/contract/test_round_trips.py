"""Every type of the protocol survives the way over the wire; what is malformed is refused with its path."""

from __future__ import annotations

import datetime
import importlib
import json
import pkgutil
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plane.protocol
from plane.protocol import codec
from plane.protocol.codec import Variants
from plane.protocol.drone_messages import MessageFromDrone
from plane.protocol.errors import MessageError
from plane.protocol.times import DbTime, DroneTime

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="ascii")), inner, max_size=3)
    ),
    max_leaves=5,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.integers(-(2**63), 2**63 - 1)


def all_structs() -> list[type]:
    found: set[type] = set()
    for module in pkgutil.iter_modules(plane.protocol.__path__):
        names = vars(importlib.import_module(f"plane.protocol.{module.name}"))
        found |= {
            value
            for value in names.values()
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and not value.__name__.startswith("_")
        }
    return sorted(found - {Variants}, key=lambda kind: kind.__name__)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type, from msgspec's own description of it."""
    return from_info(msgspec.inspect.type_info(kind))


def from_info(info: Any) -> st.SearchStrategy[Any]:  # noqa: C901 - a table of msgspec's kinds
    inspect = msgspec.inspect
    match info:
        case inspect.StructType() if issubclass(info.cls, Variants):
            return st.sampled_from(info.fields).flatmap(
                lambda f: from_info(f.type).map(lambda value: info.cls(**{f.name: value}))
            )
        case inspect.StructType():
            return st.fixed_dictionaries({f.name: from_info(f.type) for f in info.fields}).map(
                lambda members: info.cls(**members)
            )
        case inspect.UnionType():
            return st.one_of([from_info(each) for each in info.types if not is_unset(each)])
        case inspect.IntType():
            low = info.ge if info.ge is not None else -(2**63)
            return st.integers(low, info.le if info.le is not None else 2**63 - 1)
        case inspect.CustomType(cls=cls) if cls in (DroneTime, DbTime):
            return TIMES.map(cls)
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.DictType() if isinstance(info.value_type, inspect.AnyType):
            return st.dictionaries(TEXT, JSON, max_size=3)
        case inspect.DictType():
            return st.dictionaries(TEXT, from_info(info.value_type), max_size=3)
        case inspect.ListType():
            return st.lists(from_info(info.item_type), max_size=3)
        case inspect.VarTupleType():
            return st.lists(from_info(info.item_type), max_size=3).map(tuple)
        case inspect.TupleType():
            return st.tuples(*(from_info(each) for each in info.item_types))
        case inspect.DateTimeType():
            return st.datetimes(timezones=st.just(datetime.UTC))
        case inspect.StrType():
            return TEXT
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.AnyType():
            return JSON
    raise AssertionError(f"no strategy for {info}")


def is_unset(info: Any) -> bool:
    return isinstance(info, msgspec.inspect.CustomType) and info.cls is msgspec.UnsetType


@pytest.mark.parametrize("kind", all_structs(), ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same(kind: type, data: st.DataObject) -> None:
    value = data.draw(values(kind))
    encoded = codec.encode(value)
    assert codec.decode(encoded, kind) == value
    assert codec.convert(json.loads(encoded), kind) == value


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "$"),
        ("nonsense", "$"),
        ("[]", "$"),
        ("{}", "$"),
        ('{"Heartbeat": {"local_time": 1}, "AckAction": {"action_id": "a"}}', "$"),
        ('{"Heartbeat": {"local_time": "1"}}', "$.Heartbeat.local_time"),
        ('{"Heartbeat": {"local_time": 1.5}}', "$.Heartbeat.local_time"),
        ('{"Heartbeat": {"local_time": true}}', "$.Heartbeat.local_time"),
        ('{"Heartbeat": {"local_time": 9223372036854775808}}', "$.Heartbeat.local_time"),
        ('{"BackendEvent": {"event_id": 1, "backend_id": "b", "timestamp": 1}}', "$.BackendEvent"),
        (
            '{"BackendEvent": {"event_id": 1, "backend_id": "b", "state": {"status": "waiting"}, "timestamp": 1}}',
            "$.BackendEvent.state",
        ),
        (
            '{"BackendEvent": {"event_id": 1, "backend_id": "b", "state": {"status": "nope"}, "timestamp": 1}}',
            "$.BackendEvent.state.status",
        ),
        ('{"AckAction": {"action_id": "\\ud800"}}', "$"),
        ("[" * 100_000, "$"),
    ],
)
def test_what_is_malformed_is_refused_with_its_path(text: str, path: str) -> None:
    with pytest.raises(MessageError) as caught:
        codec.decode(text, MessageFromDrone)
    assert caught.value.path == path
