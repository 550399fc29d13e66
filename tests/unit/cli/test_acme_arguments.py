from __future__ import annotations

from pathlib import Path

import pytest

from plane.cli.acme_arguments import acme_settings
from plane.protocol.errors import ConfigurationError

URL, EMAIL = "https://ca.example/directory", "admin@example.com"


def test_nothing_asked_for_is_nothing_ordered() -> None:
    assert acme_settings(None, None, None, None, None, None) is None


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
    ],
)
def test_name_servers(text: str, server: tuple[str, int]) -> None:
    settings = acme_settings(URL, EMAIL, None, None, None, text)
    assert settings is not None
    assert settings.name_server == server


@pytest.mark.parametrize("key", ["-_-_", "-_-_AA", "-_-_AA=="])
def test_the_binding_s_key_is_base64url_with_or_without_padding(key: str) -> None:
    settings = acme_settings(URL, EMAIL, "kid", key, None, None)
    assert settings is not None
    assert settings.eab is not None
    assert settings.eab[1].startswith(b"\xfb\xff\xbf")
    assert "kid" not in repr(settings)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, EMAIL, None, None, None, None), "--acme-endpoint"),
        (("http://ca.example", EMAIL, None, None, None, None), "--acme-endpoint"),
        (("nonsense", EMAIL, None, None, None, None), "--acme-endpoint"),
        ((URL, None, None, None, None, None), "--acme-email"),
        ((URL, "nonsense", None, None, None, None), "--acme-email"),
        ((URL, EMAIL, "kid", None, None, None), "--acme-eab-hmac-key"),
        ((URL, EMAIL, None, "AAAA", None, None), "--acme-eab-kid"),
        ((URL, EMAIL, "kid", "!!", None, None), "base64url"),
        ((URL, EMAIL, "kid", "", None, None), "base64url"),
        ((URL, EMAIL, None, None, Path("/nonexistent"), None), "--acme-ca"),
        ((URL, EMAIL, None, None, None, "192.0.2.1:0"), "--acme-name-server"),
        ((URL, EMAIL, None, None, None, "192.0.2.1:port"), "--acme-name-server"),
    ],
)
def test_what_is_missing_or_malformed_is_named(
    arguments: tuple[str | None, str | None, str | None, str | None, Path | None, str | None], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        acme_settings(*arguments)
