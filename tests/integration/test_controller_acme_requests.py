"""Certificates on a real controller: one lease per cluster, and TXT values that only its holder sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, FakeNode, fake_dns, fake_proxy


async def leased(proxy: FakeNode) -> bool:
    await proxy.send("CertManagerRequest", "CertLeaseRequest")
    answer = await proxy.receive("CertManagerResponse")
    accepted: bool = answer["CertLeaseResponse"]["accepted"]
    return accepted


async def value_set(proxy: FakeNode, value: str) -> bool:
    await proxy.send("CertManagerRequest", {"SetTxtRecord": {"txt_value": value}})
    answer = await proxy.receive("CertManagerResponse")
    accepted: bool = answer["SetTxtRecordResponse"]["accepted"]
    return accepted


@asynccontextmanager
async def two_proxies(api: Api) -> AsyncIterator[tuple[FakeNode, FakeNode, FakeNode]]:
    async with fake_proxy(api.base, "px-one") as one, fake_proxy(api.base, "px-two") as two, fake_dns(api.base) as dns:
        yield one, two, dns


async def txt_of(dns: FakeNode, cluster: str = CLUSTER) -> dict[str, object]:
    await dns.send("TxtRecordRequest", {"cluster": cluster})
    answer: dict[str, object] = await dns.receive("TxtRecordResponse")
    return answer


async def test_only_the_holder_of_the_one_lease_sets_values(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, two_proxies(api) as (one, two, dns):
        assert not await value_set(one, "early")
        assert await leased(one)
        assert not await leased(two)
        assert not await leased(one)
        assert await txt_of(dns) == {"cluster": CLUSTER, "txt_value": None}
        assert await value_set(one, "a")
        assert not await value_set(two, "b")
        assert await txt_of(dns) == {"cluster": CLUSTER, "txt_value": "a"}
        # The challenges of apex and wildcard have one name; a DNS server of Plane 0.5.5 gets the newest value.
        assert await value_set(one, "c")
        assert await txt_of(dns) == {"cluster": CLUSTER, "txt_value": "c", "other_values": ["a"]}
        assert not await value_set(one, "x" * 256)
        await one.send("CertManagerRequest", "ReleaseCertLease")
        async with asyncio.timeout(10):
            while not await leased(two):
                await asyncio.sleep(0.02)
        assert await txt_of(dns) == {"cluster": CLUSTER, "txt_value": None}
        # A release by another is none.
        await one.send("CertManagerRequest", "ReleaseCertLease")
        assert await value_set(two, "d")


async def test_lease_ends_a_minute_after_its_last_use(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, two_proxies(api) as (one, two, _):
        assert await leased(one)
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute("UPDATE acme_txt_entries SET leased_at = now() - interval '59 s'")
            assert not await leased(two)
            assert await value_set(one, "at work")
            await connection.execute("UPDATE acme_txt_entries SET leased_at = leased_at - interval '59 s'")
            assert not await leased(two)
            await connection.execute("UPDATE acme_txt_entries SET leased_at = now() - interval '61 s'")
        finally:
            await connection.close()
        assert await leased(two)
        assert not await value_set(one, "too late")


async def test_clusters_have_leases_of_their_own(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_proxy(api.base, "px-one") as one,
        fake_proxy(api.base, "px-two", cluster="other.example") as two,
    ):
        assert await leased(one)
        assert await leased(two)


async def test_reconnected_dns_server_is_the_same_node(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        for _ in range(3):
            async with fake_dns(api.base) as dns:
                await txt_of(dns)
        connection = await asyncpg.connect(postgres_url)
        try:
            rows = await connection.fetch("SELECT kind, cluster, name FROM node")
        finally:
            await connection.close()
        assert [tuple(row) for row in rows] == [("AcmeDnsServer", None, "ns-fake")]
