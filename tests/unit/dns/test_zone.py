"""What a DNS query is answered with, packet in and packet out."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.dns.zone import RESPONSE_TTL_S, LookupNeeded, Zone, decide, encode, respond_with

ZONE = Zone("acme.example")
VALUE = "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"


def query(name: str, kind: str = "TXT", **kwargs: Any) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, **kwargs)


def answered(wire: bytes, zone: Zone = ZONE) -> dns.message.Message:
    decision = decide(zone, wire)
    assert isinstance(decision, dns.message.Message)
    return dns.message.from_wire(encode(decision, udp_size=0))


def asked(wire: bytes, zone: Zone = ZONE) -> LookupNeeded:
    decision = decide(zone, wire)
    assert isinstance(decision, LookupNeeded)
    return decision


def test_txt_inside_the_zone_is_asked_of_the_controller_in_lower_case() -> None:
    assert asked(query("Plane.EXAMPLE.com.acme.Example.").to_wire()).cluster == "plane.example.com"


@pytest.mark.parametrize(
    ("name", "cluster"),
    [("_acme-challenge.plane.example", "plane.example"), ("_ACME-challenge.localhost", "localhost")],
)
def test_without_a_zone_the_challenge_s_own_name_is_known(name: str, cluster: str) -> None:
    assert asked(query(name).to_wire(), Zone(None)).cluster == cluster


@pytest.mark.parametrize("name", ["plane.example", "_acme-challenge", ".", "x._acme-challenge.plane.example"])
def test_without_a_zone_another_name_is_outside(name: str) -> None:
    assert answered(query(name).to_wire(), Zone(None)).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("other.example", "TXT", dns.rcode.FORMERR),
        ("notacme.example", "A", dns.rcode.FORMERR),
        (".", "NS", dns.rcode.FORMERR),
        ("acme.example", "AXFR", dns.rcode.NOTIMP),
        ("c.acme.example", "IXFR", dns.rcode.NOTIMP),
    ],
)
def test_names_outside_the_zone_and_transfers_are_refused(name: str, kind: str, rcode: dns.rcode.Rcode) -> None:
    response = answered(query(name, kind).to_wire())
    assert response.rcode() == rcode
    assert not response.answer
    assert not response.authority


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("c.acme.example", "A"),
        ("C.Acme.example", "AAAA"),
        ("a.b.c.acme.example", "NS"),
        ("c.acme.example", "SOA"),
        ("c.acme.example", "CAA"),
        ("acme.example", "A"),
        ("acme.example", "TXT"),
        ("acme.example", "DS"),
        ("c.acme.example", "TYPE65280"),
    ],
)
def test_a_type_without_records_inside_the_zone_has_no_data_and_says_whose_zone_it_is(name: str, kind: str) -> None:
    response = answered(query(name, kind).to_wire())
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & dns.flags.AA
    assert not response.answer
    (soa,) = response.authority
    assert (str(soa.name).lower(), soa.rdtype) == ("acme.example.", dns.rdatatype.SOA)
    # For how long a resolver may remember it: RFC 2308, section 5.
    assert soa.ttl == soa[0].minimum == RESPONSE_TTL_S


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64])
def test_what_can_be_no_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Zone(name)


@pytest.mark.parametrize("kind", ["SOA", "NS"])
def test_the_zone_s_own_records_are_there(kind: str) -> None:
    (record,) = answered(query("Acme.example", kind).to_wire()).answer
    assert record.rdtype == dns.rdatatype.from_text(kind)
    assert str(record.name) == "Acme.example."
    assert "acme.example." in record[0].to_text().lower()


def test_any_is_answered_with_what_there_is() -> None:
    (record,) = answered(query("acme.example", "ANY").to_wire()).answer
    assert record.rdtype == dns.rdatatype.SOA
    question = asked(query("c.acme.example", "ANY").to_wire())
    (record,) = respond_with(question, (VALUE,)).answer
    assert record.rdtype == dns.rdatatype.TXT


def test_two_values_are_one_answer() -> None:
    question = asked(query("c.acme.example").to_wire())
    response = dns.message.from_wire(encode(respond_with(question, (VALUE, 'odd "\\ é')), udp_size=0))
    (record,) = response.answer
    assert record.ttl == RESPONSE_TTL_S
    assert {b"".join(each.strings) for each in record} == {VALUE.encode(), 'odd "\\ é'.encode()}
    assert response.flags & dns.flags.AA
    assert response.flags & dns.flags.RD
    assert not response.flags & dns.flags.RA


def test_no_value_is_no_data_and_no_controller_a_failure() -> None:
    question = asked(query("c.acme.example").to_wire())
    empty = respond_with(question, ())
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    assert [record.rdtype for record in empty.authority] == [dns.rdatatype.SOA]
    assert respond_with(question, None).rcode() == dns.rcode.SERVFAIL


def test_the_case_of_the_question_comes_back() -> None:
    wire = query("cLuStEr.AcMe.eXample").to_wire()
    response = dns.message.from_wire(encode(respond_with(asked(wire), (VALUE,)), udp_size=0))
    assert str(response.question[0].name) == "cLuStEr.AcMe.eXample."
    assert str(response.answer[0].name) == "cLuStEr.AcMe.eXample."


def test_what_does_not_fit_is_cut_and_said_to_be() -> None:
    question = asked(query("c.acme.example").to_wire())
    large = respond_with(question, ("x" * 250, "y" * 250, "z" * 250))
    plain = dns.message.from_wire(encode(large, udp_size=0))
    assert plain.flags & dns.flags.TC
    assert not plain.answer
    for size in (1232, 65535, None):
        large = respond_with(question, ("x" * 250, "y" * 250, "z" * 250))
        assert len(dns.message.from_wire(encode(large, udp_size=size)).answer[0]) == 3


def test_edns_is_answered_with_edns_but_without_its_options() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    response = answered(query("x.example", use_edns=0, payload=4096, options=[cookie]).to_wire())
    assert response.edns == 0
    assert response.options == ()


@pytest.mark.parametrize("wire", [b"", b"short", b"\0" * 11])
def test_less_than_a_header_is_not_answered(wire: bytes) -> None:
    assert decide(ZONE, wire) is None


def test_answers_are_not_answered() -> None:
    response = dns.message.make_response(query("c.acme.example"))
    assert decide(ZONE, response.to_wire()) is None


def test_another_opcode_is_not_implemented() -> None:
    wire = bytearray(query("c.acme.example").to_wire())
    wire[2] = (wire[2] & 0x87) | dns.opcode.NOTIFY << 3
    response = answered(bytes(wire))
    assert (response.rcode(), response.opcode()) == (dns.rcode.NOTIMP, dns.opcode.NOTIFY)


@given(st.binary(max_size=600), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=8))
def test_nothing_that_comes_fails_or_is_amplified(tail: bytes, changes: list[tuple[int, int]]) -> None:
    mutated = bytearray(query("c.acme.example", use_edns=0).to_wire() + tail)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    for wire in (tail, bytes(mutated)):
        decision = decide(ZONE, wire)
        if isinstance(decision, LookupNeeded):
            decision = respond_with(decision, ())
        if decision is not None:
            response = encode(decision, udp_size=0)
            assert response[:2] == wire[:2]
            records = [*decision.answer, *decision.authority]
            # An SOA whose names are compressed.
            assert len(response) <= len(wire) + 60 * len(records)
