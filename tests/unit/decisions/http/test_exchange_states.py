"""The table of an exchange's states, and its diagram in the documentation."""

from __future__ import annotations

from pathlib import Path

from plane.decisions.http.exchange_states import TRANSITIONS, Event, State

FINAL = State.CLOSED
# Possible in all states, so the diagram leaves them out.
EVERYWHERE = (Event.LAST_RESPONSE_END, Event.CUT)


def test_the_table_has_every_state_and_every_event() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {event for events in TRANSITIONS.values() for event in events} == set(Event)


def test_every_state_is_reached_and_leads_to_the_end() -> None:
    reached, ending = {State.IDLE}, {FINAL}
    for _ in State:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
        ending |= {state for state, events in TRANSITIONS.items() if ending.intersection(events.values())}
    assert reached == ending == set(State)


def test_every_exchange_can_be_cut_and_closed() -> None:
    for state, events in TRANSITIONS.items():
        if state is not FINAL:
            assert events[Event.CUT] is FINAL
        if state not in (State.TUNNEL, State.CLOSING, FINAL):
            assert events[Event.LAST_RESPONSE_END] is State.CLOSING


def test_no_request_is_read_before_the_response_to_the_one_before_it() -> None:
    assert [state for state, events in TRANSITIONS.items() if Event.REQUEST_HEAD in events] == [State.IDLE]
    assert Event.RESPONSE_HEAD not in TRANSITIONS[State.EARLY]
    assert Event.RESPONSE_HEAD not in TRANSITIONS[State.STREAMING]


def test_the_diagram_in_the_documentation_is_drawn_from_the_table() -> None:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> idle"]
    for state, events in TRANSITIONS.items():
        for event, to in events.items():
            if event not in EVERYWHERE or state is State.CLOSING:
                lines.append(f"    {state} --> {to}: {event}")
    lines += ["    tunnel --> [*]", "    closed --> [*]", "```"]
    page = (Path(__file__).parents[4] / "docs" / "internals" / "architecture.md").read_text()
    assert "\n".join(lines) in page
