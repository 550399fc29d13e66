"""The trace context of a spawn order: an addition that nobody sees who does not trace."""

from __future__ import annotations

import msgspec
import pytest

from plane.protocol import codec
from plane.protocol.drone_messages import SpawnOrder
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.protocol.times import DroneTime

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TIME = DroneTime(1_000)
KEY = AcquiredKey(key=KeyConfig(name="k"), deadlines=KeyDeadlines(TIME, TIME, TIME), token=1)


class OriginalOrder(msgspec.Struct):
    """The fields that Plane 0.5.5 knows."""

    executable: dict[str, str]
    key: AcquiredKey
    static_token: str | None = None


def test_an_order_that_is_not_traced_is_that_of_plane_0_5_5() -> None:
    order = codec.decode(codec.encode(SpawnOrder(executable={}, key=KEY)), dict)
    assert set(order) == {"executable", "key", "static_token"}


def test_traceparent_survives_and_others_ignore_it() -> None:
    text = codec.encode(SpawnOrder(executable={}, key=KEY, traceparent=TRACEPARENT))
    assert codec.decode(text, SpawnOrder).traceparent == TRACEPARENT
    assert codec.decode(text, OriginalOrder).static_token is None


@pytest.mark.parametrize("value", ["null", '"nonsense"'])
def test_no_value_of_it_makes_an_order_unreadable(value: str) -> None:
    text = codec.encode(SpawnOrder(executable={}, key=KEY)).decode()
    assert codec.decode(text[:-1] + f',"traceparent":{value}}}', SpawnOrder).key == KEY
