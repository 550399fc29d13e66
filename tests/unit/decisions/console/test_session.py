"""A session needs the database's secret and the key's hash; it ends with its time, and with its key."""

from __future__ import annotations

import pytest

from plane.decisions.access import ApiKeys, KeyRecord, Role, key_entry, parse_api_keys
from plane.decisions.console.session import SESSION_LIFETIME_S, SessionSigner

NOW = 1_800_000_000.5
SECRET = b"the database's secret"


def keys(*names: str) -> ApiKeys:
    return parse_api_keys("\n".join(key_entry(name, Role.READ, f"key of {name}") for name in names))


def record(found: ApiKeys, name: str) -> KeyRecord:
    it = found.record(f"key of {name}")
    assert it is not None
    return it


def issued(name: str = "ada", now: float = NOW) -> str:
    return SessionSigner(SECRET).issue(record(keys(name), name), now)


def test_any_controller_with_the_secret_and_the_key_accepts_a_session() -> None:
    session = SessionSigner(SECRET).verify(issued(), keys("bob", "ada"), NOW)
    assert session is not None
    assert (session.key.name, session.key.role) == ("ada", Role.READ)
    assert session.expires_at == int(NOW) + SESSION_LIFETIME_S


def test_a_session_ends_after_its_lifetime() -> None:
    signer, cookie = SessionSigner(SECRET), issued()
    assert signer.verify(cookie, keys("ada"), int(NOW) + SESSION_LIFETIME_S - 0.1) is not None
    assert signer.verify(cookie, keys("ada"), int(NOW) + SESSION_LIFETIME_S) is None


def test_a_session_ends_when_its_key_is_removed() -> None:
    assert SessionSigner(SECRET).verify(issued(), keys("bob"), NOW) is None


def test_a_key_with_the_same_name_inherits_no_session() -> None:
    renewed = parse_api_keys(key_entry("ada", Role.ADMIN, "another key"))
    assert SessionSigner(SECRET).verify(issued(), renewed, NOW) is None


def test_the_role_is_that_of_the_key_file_at_present() -> None:
    raised = parse_api_keys(key_entry("ada", Role.ADMIN, "key of ada"))
    session = SessionSigner(SECRET).verify(issued(), raised, NOW)
    assert session is not None
    assert session.key.role is Role.ADMIN


def test_neither_the_secret_nor_the_hash_alone_signs_a_session() -> None:
    known = record(keys("ada"), "ada")
    with_hash_alone = SessionSigner(b"guessed").issue(known, NOW)
    with_secret_alone = SessionSigner(SECRET).issue(KeyRecord(known.key, "0" * 64, known.fingerprint), NOW)
    for forged in (with_hash_alone, with_secret_alone):
        assert SessionSigner(SECRET).verify(forged, keys("ada"), NOW) is None


def test_a_changed_expiry_is_refused() -> None:
    fingerprint, expires_at, mac = issued().split(".")
    longer = f"{fingerprint}.{int(expires_at) + 1}.{mac}"
    assert SessionSigner(SECRET).verify(longer, keys("ada"), NOW) is None


def test_a_mac_of_another_key_is_refused() -> None:
    ada, bob = issued("ada").split("."), issued("bob").split(".")
    mixed = ".".join((*ada[:2], bob[2]))
    assert SessionSigner(SECRET).verify(mixed, keys("ada", "bob"), NOW) is None


@pytest.mark.parametrize("cookie", ["", ".", "a.b.c", "é" * 10, issued() + " ", issued().upper(), "0" * 10_000])
def test_a_malformed_cookie_is_no_session(cookie: str) -> None:
    assert SessionSigner(SECRET).verify(cookie, keys("ada"), NOW) is None


def test_each_session_has_its_own_token_for_changes() -> None:
    signer = SessionSigner(SECRET)
    first = signer.verify(issued(), keys("ada"), NOW)
    second = signer.verify(issued(now=NOW - 1), keys("ada"), NOW)
    assert first is not None
    assert second is not None
    assert first.csrf_token != second.csrf_token
    assert first.csrf_token not in issued()


def test_without_keys_everyone_is_admin_with_a_token_that_needs_the_secret() -> None:
    session = SessionSigner(SECRET).without_keys(NOW)
    assert session.key.role is Role.ADMIN
    assert session.csrf_token == SessionSigner(SECRET).without_keys(NOW + 60).csrf_token
    assert session.csrf_token != SessionSigner(b"other").without_keys(NOW).csrf_token
