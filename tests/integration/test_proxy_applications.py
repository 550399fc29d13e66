"""What the proxy does for applications that do not know the path below which they run."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.certificates import Authority
from harness.proxy_world import CLUSTER, LIMIT_S, World, get, says, status, world
from plane.protocol.names import ClusterName

LIVE, OTHER, ENDED = "L" * 43, "O" * 43, "E" * 43
STATIC = "s." + "S" * 43
SUB = f"sub.{CLUSTER}"
BROWSER = "Accept: text/html"
CLOSE = "Connection: close"
ABSOLUTE = "application used an absolute path"


def referer(token: str, host: str = CLUSTER) -> str:
    return f"Referer: http://{host}/{token}/tree"


def fields_of(response: bytes) -> dict[str, str]:
    lines = response.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def body_of(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


# Absolute paths.


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        # The page is a live session's; so is that of the same request without a page, by its form alone.
        ("/lab", (referer(LIVE),), 410),
        ("/lab", (), 410),
        ("/@vite/client", (), 410),
        ("/" + "a" * 300, (), 410),
        ("/", (referer(LIVE),), 400),
    ],
)
async def test_an_absolute_path_gets_another_error_than_a_session_that_has_ended(
    target: str, fields: tuple[str, ...], expected: int
) -> None:
    async with world() as it:
        it.add_route(LIVE)
        assert status(await it.send(get(f"/{LIVE}/", CLOSE))) == 200
        page = await it.send(get(target, BROWSER, CLOSE, *fields))
        said = await it.send(get(target, CLOSE, *fields))
    assert (status(page), status(said)) == (expected, expected)
    assert b"<title>The application used an absolute path</title>" in page
    assert b"docs/how-to/applications" in page
    assert json.loads(body_of(said)) == {
        "status": expected,
        "error": "the application used an absolute path",
        "documentation": "docs/how-to/applications",
    }
    assert LIVE.encode() not in page + said


@pytest.mark.parametrize("fields", [(), (referer(LIVE),)])
async def test_a_token_that_has_ended_gets_the_error_of_an_ended_session(fields: tuple[str, ...]) -> None:
    async with world() as it:
        it.add_route(LIVE)
        assert status(await it.send(get(f"/{LIVE}/", CLOSE))) == 200
        page = await it.send(get(f"/{ENDED}/", BROWSER, CLOSE, *fields))
        assert b"<title>This session has ended</title>" in page
        assert body_of(await it.send(get(f"/{ENDED}/", CLOSE, *fields))) == b""
        # Without a live session behind it, `/` is nobody's absolute path.
        assert json.loads(body_of(await it.send(get("/", CLOSE, referer(ENDED)))))["error"] == "bad request"


async def test_the_log_names_the_backend_once_a_minute_and_no_token() -> None:
    with capture_logs() as logs:
        async with world() as it:
            it.add_route(LIVE)
            assert status(await it.send(get(f"/{LIVE}/", CLOSE))) == 200
            for target in ("/lab", "/lab", f"/{ENDED}x", "/favicon.ico", f"/{ENDED}/"):
                assert status(await it.send(get(target, CLOSE, referer(LIVE)))) == 410
            assert status(await it.send(get(f"/{ENDED}x", CLOSE))) == 410
    found = [entry for entry in logs if entry["event"] == ABSOLUTE]
    assert [(entry.get("backend"), entry["host"], entry["path"]) for entry in found] == [
        (f"b-{LIVE}", CLUSTER, "/lab"),
        (None, CLUSTER, f"/{ENDED[:6]}…"),
    ]
    assert {entry["log_level"] for entry in found} == {"warning"}


# The wrong host.


async def test_a_wrong_host_gets_an_error_and_a_log_line_with_both_names() -> None:
    with capture_logs() as logs:
        async with world() as it:
            it.add_route("sub", subdomain="sub")
            page = await it.send(get("/t/", BROWSER, CLOSE, host="other.example"))
            said = await it.send(get("/t/", CLOSE, host="OTHER.example"))
            for host in (CLUSTER, f"x.{CLUSTER}"):
                wrong = await it.send(get("/sub/", CLOSE, host=host))
                assert json.loads(body_of(wrong))["expected"] == SUB
            assert status(await it.send(get("/sub/", CLOSE, host=SUB))) == 200
    assert (status(page), status(said)) == (403, 403)
    assert b"This request is for other.example. The right address begins with localhost:9." in page
    assert json.loads(body_of(said)) == {
        "status": 403,
        "error": "this address does not belong to that session",
        "host": "OTHER.example",
        "expected": CLUSTER,
    }
    found = [entry for entry in logs if entry["event"] == "request for a host that is not the session's"]
    assert [(entry["host"], entry["expected"], entry["log_level"]) for entry in found] == [
        ("other.example", CLUSTER, "warning"),
        (CLUSTER, SUB, "warning"),
        (f"x.{CLUSTER}", SUB, "warning"),
    ]


async def test_a_long_host_is_shortened_in_the_log() -> None:
    with capture_logs() as logs:
        async with world() as it:
            for target in ("/t/", "/lab"):
                response = await it.send(get(target, CLOSE, host="x" * 10_000))
                assert status(response) == 403
                assert json.loads(body_of(response))["host"] == "x" * 255
    assert [len(entry["host"]) for entry in logs if entry["log_level"] == "warning"] == [255]


async def test_public_hosts_are_served_like_the_cluster() -> None:
    async with world(public_hosts=("127.0.0.1:9", "forwarded.example")) as it:
        it.add_route("sub", subdomain="sub")
        for host in ("127.0.0.1:9", "forwarded.example", "Forwarded.example:443"):
            assert status(await it.send(get("/t/", CLOSE, f"Referer: http://{host}/t/x", host=host))) == 200
            # The backend gets the name that the browser uses, and no token.
            assert f"\r\nHost: {host}\r\n".encode() in it.heard[-1]
            assert f"\r\nReferer: http://{host}/x\r\n".encode() in it.heard[-1]
        assert status(await it.send(get("/sub/", CLOSE, host="sub.forwarded.example"))) == 200
        assert status(await it.send(get("http://forwarded.example/t/", CLOSE, host="forwarded.example"))) == 200
        for host in ("127.0.0.1:8", "forwarded.example.evil"):
            assert status(await it.send(get("/t/", CLOSE, host=host))) == 403


# Fields of requests and responses.


async def test_the_backend_gets_the_prefix_that_its_path_lacks() -> None:
    async with world() as it:
        it.add_route(STATIC)
        forged = ("X-Forwarded-Prefix: /evil", "X_Forwarded_Prefix: /evil")
        assert status(await it.send(get("/t/a", CLOSE, *forged))) == 200
        assert status(await it.send(get(f"/{STATIC}/a", CLOSE, *forged))) == 200
    told, static = ([line for line in head.decode().lower().split("\r\n") if "prefix" in line] for head in it.heard)
    assert told == ["x-forwarded-prefix: /t"]
    # A static token stays in the path: the application would put the prefix before it twice.
    assert static == []


REDIRECT = (
    b"HTTP/1.1 302 Found\r\nLocation: /lab\r\nSet-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize("option", [True, False, None])
async def test_redirects_and_cookies_are_moved_below_the_token_if_requested(option: bool | None) -> None:
    async with world() as it:
        changes = {} if option is None else {"rewrite_prefix": option}
        # One backend, and its connection, for two tokens.
        for token in (LIVE, OTHER):
            it.add_route(token, backend_id="b", **changes)

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(REDIRECT)

        it.exchange = redirect
        for token in (LIVE, OTHER):
            response = await it.send(get(f"/{token}/", CLOSE))
            prefix = f"/{token}".encode() if option else b""
            assert b"\r\nLocation: " + prefix + b"/lab\r\n" in response
            assert b"\r\nSet-Cookie: a=b; Path=" + (prefix or b"/") + b"\r\nSet-Cookie: c=d\r\n" in response
    assert it.connections == 1


async def test_an_absolute_redirect_is_recognized_by_the_host_of_the_request() -> None:
    async with world(public_hosts=("forwarded.example",)) as it:
        it.add_route("t", rewrite_prefix=True)
        for host, seen in (("forwarded.example", "/t/lab"), (CLUSTER, "/lab")):
            it.exchange = says(
                b"HTTP/1.1 201 Created\r\nLocation: http://forwarded.example/lab\r\nContent-Length: 0\r\n\r\n"
            )
            response = await it.send(get("/t/", CLOSE, host=host))
            assert fields_of(response)["location"] == f"http://forwarded.example{seen}"


async def test_an_upgrade_may_set_a_cookie() -> None:
    async with world() as it:
        it.add_route("t", rewrite_prefix=True)
        it.exchange = says(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n"
            b"Set-Cookie: a=b; Path=/\r\n\r\n"
        )
        response = await it.send(get("/t/", "Connection: Upgrade", "Upgrade: raw"))
        assert b"\r\nSet-Cookie: a=b; Path=/t\r\n" in response


# The token in a cookie.


def visit(it: World, token: str = LIVE, **changes: object) -> None:
    it.add_route(token, **{"backend_id": "b", "subdomain": "sub", "token_in_cookie": True, **changes})


def cookie(token: str = LIVE, name: str = "plane-token") -> str:
    return f"Cookie: app=1; {name}={token}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("token", [LIVE, STATIC])
async def test_the_first_visit_moves_the_token_into_a_cookie(method: str, token: str) -> None:
    async with world() as it:
        visit(it, token)
        response = await it.send(get(f"/{token}/lab?next=//x", CLOSE, host=SUB, method=method))
        assert (status(response), body_of(response)) == (302, b"")
        fields = fields_of(response)
        assert fields["location"] == "/lab?next=//x"
        assert fields["set-cookie"] == f"plane-token={token}; Path=/; HttpOnly; SameSite=Lax"
        assert fields["cache-control"] == "no-store"
        assert fields["referrer-policy"] == "no-referrer"
        assert it.heard == []
        # Not another way out of the host.
        fields = fields_of(await it.send(get(f"/{token}//evil.example/", CLOSE, host=SUB)))
        assert fields["location"] == "/.//evil.example/"
        # On the wrong host nothing is stored.
        response = await it.send(get(f"/{token}/", CLOSE))
        assert status(response) == 403
        assert b"Set-Cookie" not in response


async def test_later_requests_are_routed_by_the_cookie_and_the_backend_never_sees_it() -> None:
    async with world() as it:
        visit(it, rewrite_prefix=True)
        for target in ("/", "/?q", "/lab/tree", "/ready", f"/{ENDED}/hash"):
            response = await it.send(get(target, CLOSE, cookie(), f"Referer: http://{SUB}/lab/x", host=SUB))
            assert status(response) == 200, target
            assert fields_of(response)["vary"] == "Cookie"
            head = it.heard[-1].decode()
            assert head.startswith(f"GET {target} HTTP/1.1\r\n")
            assert f"\r\nx-verified-path: {target.partition('?')[0]}" in head
            assert f"\r\nReferer: http://{SUB}/lab/x\r\n" in head
            assert "\r\nx-verified-username: ann\r\n" in head
            assert "\r\nCookie: app=1\r\n" in head
            assert LIVE not in head
            assert "prefix" not in head


async def test_a_request_with_the_token_in_a_cookie_has_no_prefix() -> None:
    async with world() as it:
        visit(it, rewrite_prefix=True)
        it.exchange = says(REDIRECT)
        assert fields_of(await it.send(get("/", CLOSE, cookie(), host=SUB)))["location"] == "/lab"


async def test_a_web_socket_is_routed_by_the_cookie_and_ends_with_the_token() -> None:
    async with world() as it:
        visit(it)
        it.exchange = it.switch_and_echo
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        upgrade = ("Connection: Upgrade", "Upgrade: raw")
        writer.write(get("/websockify", *upgrade, cookie(), f"Origin: http://{SUB}", host=SUB))
        async with asyncio.timeout(LIMIT_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert it.controller is not None
            revoked = {"TokensRevoked": {"backend": "b", "tokens": [LIVE]}}
            await it.controller.send_str(json.dumps(revoked))
            assert await reader.read() == b""
        writer.close()
        ended = await it.send(get("/", BROWSER, CLOSE, cookie(), host=SUB))
        assert status(ended) == 410
        assert b"This session has ended" in ended


async def test_a_token_that_expires_opens_nothing_more() -> None:
    async with world() as it:
        visit(it, expires_in_ms=300)
        begun = time.monotonic()
        assert status(await it.send(get("/", CLOSE, cookie(), host=SUB))) == 200
        it.routes[LIVE] = None
        await asyncio.sleep(max(0.0, 0.35 - (time.monotonic() - begun)))
        assert status(await it.send(get("/", CLOSE, cookie(), host=SUB))) == 410


async def test_a_new_token_in_the_path_precedes_the_cookie_of_an_older_visit() -> None:
    async with world() as it:
        visit(it)
        visit(it, OTHER)
        for old in (LIVE, ENDED, OTHER):
            response = await it.send(get(f"/{OTHER}/x", CLOSE, cookie(old), host=SUB))
            assert (status(response), fields_of(response)["location"]) == (302, "/x")
            assert f"plane-token={OTHER};" in fields_of(response)["set-cookie"]


@pytest.mark.parametrize(
    "fields",
    [
        # A sibling's own token, set for the whole domain; and two, of which one is a sibling's.
        (cookie(OTHER),),
        (cookie(LIVE), cookie(OTHER)),
        # The name of TLS, without TLS.
        (cookie(LIVE, "__Host-plane-token"),),
        (cookie("x"),),
    ],
)
async def test_a_cookie_that_a_sibling_may_have_set_leads_nowhere(fields: tuple[str, ...]) -> None:
    async with world() as it:
        visit(it)
        it.add_route(OTHER, subdomain="evil", token_in_cookie=True)
        assert status(await it.send(get("/lab", CLOSE, *fields, host=SUB))) == 410
        # The token in the path works all the same.
        assert status(await it.send(get(f"/{LIVE}/", CLOSE, *fields, host=SUB))) == 302
        assert it.heard == []


async def test_only_backends_with_the_option_use_the_cookie() -> None:
    async with world() as it:
        it.add_route(LIVE, subdomain="sub")
        assert status(await it.send(get("/lab", CLOSE, cookie(), host=SUB))) == 410
        assert status(await it.send(get(f"/{LIVE}/", CLOSE, cookie(), host=SUB))) == 200
        assert b"\r\nCookie: app=1\r\n" in it.heard[0]
        # On the shared origin every backend would be sent the cookie.
        it.add_route(OTHER, token_in_cookie=True)
        assert status(await it.send(get("/lab", CLOSE, cookie(OTHER)))) == 410
        assert status(await it.send(get(f"/{OTHER}/", CLOSE, cookie(OTHER)))) == 200


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("POST", (f"Origin: http://evil.{CLUSTER}",)),
        ("GET", (f"Origin: http://evil.{CLUSTER}", "Connection: Upgrade", "Upgrade: websocket")),
        ("GET", ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors")),
    ],
)
async def test_a_request_that_another_origin_causes_is_refused(method: str, fields: tuple[str, ...]) -> None:
    async with world() as it:
        visit(it)
        response = await it.send(get("/act", cookie(), *fields, host=SUB, method=method))
        assert status(response) == 403
        assert json.loads(body_of(response))["error"] == "another site caused this request"
        assert it.heard == []
        own = [field.replace("evil.", "sub.").replace("same-site", "same-origin") for field in fields]
        assert status(await it.send(get("/act", cookie(), *own, host=SUB, method=method))) == 200


async def test_with_the_token_in_the_path_a_body_or_an_upgrade_is_forwarded_at_once() -> None:
    async with world() as it:
        visit(it)
        it.exchange = says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        response = await it.send(get(f"/{LIVE}/ws", "Connection: Upgrade", "Upgrade: raw", host=SUB))
        assert status(response) == 101
        it.exchange = it.answer_ok
        post = get(f"/{LIVE}/api", "Content-Length: 0", CLOSE, host=SUB, method="POST")
        assert status(await it.send(post)) == 200
        assert it.heard[0].startswith(b"POST /api HTTP/1.1\r\n")


async def test_the_root_redirect_of_a_subdomain_is_not_cached() -> None:
    async with world(root_redirect_url="https://app.example/") as it:
        own = await it.send(get("/", CLOSE))
        other = await it.send(get("/", CLOSE, host=SUB))
    assert (status(own), status(other)) == (301, 301)
    assert "cache-control" not in fields_of(own)
    assert fields_of(other)["cache-control"] == "no-store"


async def test_over_tls_only_the_secure_cookie_is_set_and_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with world(https_port=0, cert_path=authority.json(authority.issue()), cluster=ClusterName("localhost")) as it:
        visit(it, cluster="localhost")

        async def ask(*fields: str, target: str = "/lab") -> bytes:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", it.https_port, ssl=authority.client(), server_hostname="localhost"
            )
            writer.write(get(target, *fields, CLOSE, host="sub.localhost"))
            async with asyncio.timeout(LIMIT_S):
                response = await reader.read()
            writer.close()
            return response

        first = fields_of(await ask(target=f"/{LIVE}/"))
        assert first["set-cookie"] == f"__Host-plane-token={LIVE}; Path=/; HttpOnly; SameSite=Lax; Secure"
        assert status(await ask(cookie(LIVE, "__Host-plane-token"))) == 200
        assert status(await ask(cookie(LIVE))) == 410
        # The port that only leads to TLS takes no cookie for a way.
        response = await it.send(get("/lab", CLOSE, cookie(), host="sub.localhost"))
        assert (status(response), fields_of(response)["location"]) == (301, "https://sub.localhost/lab")
