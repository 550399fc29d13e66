"""However many ask at once, a key has one process; each asker has a token of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.clusters import Cluster, separate_parts


def test_a_hundred_connects_by_ten_clients(cluster: Cluster) -> None:
    def ask(number: int) -> dict[str, object]:
        config = {"executable": cluster.executable()}
        return cluster.connect(number, key={"name": "shared"}, spawn_config=config)

    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(ask, range(100)))
    assert len({answer["backend_id"] for answer in answers}) == 1
    assert len({answer["token"] for answer in answers}) == 100
    with ThreadPoolExecutor(10) as clients:
        pages = list(clients.map(lambda answer: cluster.get(str(answer["url"])), answers))
    assert {page.status for page in pages} == {200}
    assert len({page.json()["facts"]["pid"] for page in pages}) == 1


def test_four_controllers_start_one_process(postgres_url: str, tmp_path: Path) -> None:
    with separate_parts(postgres_url, tmp_path, controllers=4) as cluster:
        test_a_hundred_connects_by_ten_clients(cluster)


def test_the_backend_knows_who_it_is_and_who_asks(cluster: Cluster) -> None:
    config = {"executable": cluster.executable(GREETING="hello")}
    answer = cluster.connect(key={"name": "k"}, spawn_config=config, user="ann", auth={"role": "éditeur"})
    page = cluster.get(answer["url"], "a/b?c=d")
    assert page.headers["x-plane-backend-id"] == answer["backend_id"]
    body = page.json()
    assert body["session"]["KEY"] == "k"
    assert body["session"]["ID"] == answer["backend_id"]
    assert int(body["session"]["FENCING_TOKEN"]) > 0
    assert body["facts"]["path"] == "/a/b?c=d"
    headers = {name.lower(): value for name, value in body["facts"]["headers"]}
    assert headers["x-verified-username"] == "ann"
    assert headers["x-verified-user-data"] == '{"role":"\\u00e9diteur"}'
    assert headers["x-verified-path"] == f"/{answer['token']}/a/b?c=d"
    assert headers["x-verified-backend"] == answer["backend_id"]
    assert headers["x-verified-secret"] == answer["secret_token"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"


def test_static_tokens_keep_the_path(cluster: Cluster) -> None:
    answer = cluster.spawn("static", spawn={"use_static_token": True})
    body = cluster.get(answer["url"], "x").json()
    assert body["facts"]["path"] == f"/{answer['token']}/x"
    assert body["session"]["STATIC_TOKEN"] == answer["token"]
