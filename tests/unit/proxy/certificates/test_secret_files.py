"""Files with private keys: whole or not at all, and nobody else's to read. The account's key, which is one."""

from __future__ import annotations

import resource
import stat
from pathlib import Path

import pytest

from plane.protocol.errors import ConfigurationError
from plane.proxy.certificates.account_key import AccountKey, account_key_path
from plane.proxy.certificates.secret_files import write_secret


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(0o644)
    write_secret(file, b"secret")
    assert file.read_bytes() == b"secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_secret(file, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel then refuses longer files, with EFBIG where a full disk says ENOSPC. Python ignores the signal.
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_secret(file, b"longer than eight bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_account_s_key_survives_a_restart(tmp_path: Path) -> None:
    path = account_key_path(tmp_path / "cert.json")
    made = AccountKey(path).load().private_numbers()
    assert AccountKey(path).load().private_numbers() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_it_is_kept_in_memory() -> None:
    key = AccountKey(None)
    assert key.load() is key.load()


@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_holds_none_is_not_overwritten(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="move it away"):
        AccountKey(path).load()
    assert path.read_bytes() == content
