"""What a hostile or broken process can do to the machine and to the drone: little, and nothing of it stays."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import real_parts
from harness.clusters import Cluster, processes_of, separate_parts, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="control groups and other users need root")


# A folder of root's that nobody else may enter, with files that the drone is told to hide or to show.
PRIVATE = Path(f"/var/lib/plane-test-private-{os.getpid()}")
KEYS = Path(f"/var/lib/plane-test-keys-{os.getpid()}")
FILES = ("--hide", str(KEYS), "--expose", str(PRIVATE / "shown"))


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    """The files that `FILES` names. Those with keys can be read by everybody, so that isolation alone hides them."""
    try:
        (PRIVATE / "shown").mkdir(parents=True)
        PRIVATE.chmod(0o700)
        (PRIVATE / "secret").write_text("secret")
        program = PRIVATE / "shown/program"
        program.write_text("#!/bin/sh\necho shown; exit 9\n")
        program.chmod(0o755)
        KEYS.write_text("an admin key")
        yield
    finally:
        shutil.rmtree(PRIVATE)
        KEYS.unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the cluster; ``mounts`` in it is the drone's base of mounts."""
    folder = tmp_path_factory.mktemp("isolation")
    (folder / "mounts").mkdir()
    return folder


@pytest.fixture(scope="module")
def cluster(module_postgres_url: str, folder: Path) -> Iterator[Cluster]:
    options = ("--terminate-on-exit", "--mount-base", str(folder / "mounts"), *FILES)
    with separate_parts(module_postgres_url, folder, controllers=1, drone=options) as running:
        yield running


def ended(cluster: Cluster, script: str, **executable: Any) -> dict[str, Any]:
    """How a shell script ended."""
    whole = {"command": ["/bin/sh", "-c", script], **executable}
    backend = cluster.connect(spawn_config={"executable": whole}, key={"name": "k"})["backend_id"]
    # A fork bomb takes its time on a busy machine.
    entry = cluster.until_status(backend, "terminated", limit_s=90)
    assert processes_of(backend) == []
    return entry


def said(cluster: Cluster, script: str, **executable: Any) -> str:
    """What a script wrote before it exited with 9."""
    message: str = ended(cluster, f"{script}; exit 9", **executable)["message"]
    assert message.startswith("exited with code 9"), message
    return message.partition("its last output:\n")[2]


def test_with_bubblewrap_only_the_mount_can_be_written(cluster: Cluster, folder: Path) -> None:
    if not shutil.which("bwrap"):
        real_parts.missing("bubblewrap")
    secret = Path("/tmp") / f"secret-{os.getpid()}"
    secret.write_text("others must not see it")
    try:
        places = "/etc /usr /var/lib /root /plane-data/.. /dev/shm/../.. /proc/sys/kernel"
        script = f'for place in {places}; do touch "$place/written" 2>/dev/null && echo "wrote $place"; done'
        script += f"; cat {secret} 2>&1; ls /tmp; ls /run | grep -c docker; id -u; ls -d /proc/[0-9]* | wc -l"
        script += "; mount -o remount,rw / 2>/dev/null && echo remounted; echo kept > /plane-data/file; echo done"
        outputs = [said(cluster, script, mount="data"), said(cluster, script)]
    finally:
        secret.unlink()
    for output in outputs:
        assert "wrote" not in output
        assert "remounted" not in output
        assert "others must not see it" not in output
        assert "No such file" in output
        assert output.endswith("done")
    assert (folder / "mounts/data/file").read_text() == "kept\n"
    # The drone's own files neither: they hold others' secrets.
    db = folder / "drone.sqlite"
    assert "SQLite" not in said(cluster, f"cat {db}; ls {db}-backends/*", isolation="bubblewrap")


def test_semaphores_can_be_made_by_every_user(cluster: Cluster) -> None:
    # Python's multiprocessing makes them in /dev/shm, and with it much of what serves models.
    script = f"{sys.executable} -c 'import multiprocessing; multiprocessing.Lock(); print(\"made\")'"
    assert said(cluster, script, isolation="bubblewrap") == "made"


def test_what_is_asked_for_is_never_less(cluster: Cluster) -> None:
    assert (
        said(cluster, "touch /tmp/x && echo mine; ls /proc | grep -c '^[0-9]'", isolation="bubblewrap").split()[0]
        == "mine"
    )
    refused = ended(cluster, "true", isolation="none", mount=True)
    assert "a process without isolation cannot have a mount" in refused["message"]


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_its_path_finds_its_own_programs_only(cluster: Cluster, isolation: str) -> None:
    assert said(cluster, "echo $PATH", env={"PATH": "/nowhere"}, user="nobody", isolation=isolation) == "/nowhere"


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_another_user(cluster: Cluster, isolation: str) -> None:
    nobody = pwd.getpwnam("nobody")
    for user in ("nobody", str(nobody.pw_uid)):
        output = said(
            cluster, "id -u; id -G; cat /etc/shadow; grep CapEff /proc/self/status", user=user, isolation=isolation
        )
        assert output.splitlines()[:2] == [str(nobody.pw_uid), str(nobody.pw_gid)]
        assert "root:" not in output
        assert "CapEff:\t0000000000000000" in output
    # Output is a file that it may open again.
    assert "again" in said(cluster, "echo again > /dev/stderr", user="nobody", isolation=isolation)


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_a_fork_bomb_is_contained_and_ended(cluster: Cluster, isolation: str) -> None:
    # The shell gives up when it can make no more; what it has made is ended with it.
    entry = ended(cluster, "while true; do sleep 1000 & done", isolation=isolation)
    assert "Cannot fork" in entry["message"]
    assert cluster.get(cluster.spawn("other")["url"]).status == 200


def test_memory_and_cpu_are_limited(cluster: Cluster) -> None:
    limits = {"memory_limit_bytes": 60_000_000, "cpu_period_percent": 20}
    eat = "a=x; while true; do a=$a$a; done"
    for isolation in ("none", "bubblewrap"):
        entry = ended(cluster, eat, isolation=isolation, resource_limits=limits)
        assert "ran out of memory (resource_limits.memory_limit_bytes)" in entry["message"]
    # A private /tmp is memory too.
    entry = ended(
        cluster, "head -c 200000000 /dev/zero > /tmp/x; sleep 100", resource_limits=limits, isolation="bubblewrap"
    )
    assert "ran out of memory" in entry["message"] or entry["exit_error"] is True
    # A tenth of a second of CPU takes about half a second of time; it exits by the limit of CPU time.
    entry = ended(cluster, "while true; do :; done", resource_limits={"cpu_time_limit": 1})
    assert entry["exit_error"] is True


def test_what_leaves_its_session_and_forgets_its_name_is_ended_too(cluster: Cluster) -> None:
    marker = f"86400.{os.getpid()}"
    script = f"env -i setsid sh -c '(env -i setsid sleep {marker} &) &'; sleep 0.2; exec sleep 1000"
    for isolation in ("none", "bubblewrap"):
        executable = {"command": ["/bin/sh", "-c", script], "isolation": isolation}
        backend = cluster.connect(spawn_config={"executable": executable})["backend_id"]
        until(lambda: running(marker))
        cluster.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        cluster.until_status(backend, "terminated")
        assert not running(marker)


def running(marker: str) -> bool:
    return bool(subprocess.run(["pgrep", "-f", f"sleep {marker}$"], check=False, capture_output=True).stdout)


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
@pytest.mark.parametrize("user", [None, "nobody"])
def test_loader_variables_do_nothing_in_the_supervisors(
    cluster: Cluster, isolation: str, user: str | None, tmp_path: Path
) -> None:
    # The loader of each program that is started with these writes a file; those of the supervisors would, as root.
    traces = Path(f"/var/lib/plane-test-{os.getpid()}"), tmp_path / "traces"
    for folder in traces:
        folder.mkdir(mode=0o755)
        try:
            env = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(folder / "trace")}
            entry = ended(cluster, "", command=["/usr/bin/id", "-u"], isolation=isolation, user=user, env=env)
            assert entry["exit_error"] is False, entry
            traced = [path.read_text() for path in folder.iterdir()]
            assert [text for text in traced if "initialize program: /usr/bin/id" not in text] == []
        finally:
            shutil.rmtree(folder)


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_variables_are_in_no_other_process_and_on_no_command_line(cluster: Cluster, isolation: str) -> None:
    secret = f"secret-of-{os.getpid()}"
    env = {"SECRET": secret, "LD_BIND_NOW": "1", "ODD": 'it\'s "$HOME" \\ `id`\n…'}
    command = ["/bin/sh", "-c", 'printf \'%s|\' "$SECRET" "$ODD"; cat; echo; exec sleep 1000']
    executable = {"command": command, "isolation": isolation, "env": env}
    backend = cluster.connect(spawn_config={"executable": executable})["backend_id"]
    until(lambda: any(b"sleep\x001000" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(backend)))
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(backend)}
    environments = {pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in lines}
    assert not any(secret.encode() in line for line in lines.values())
    [told] = [pid for pid in lines if lines[pid].startswith(b"sleep")]
    assert len(lines) > 1
    for pid, found in environments.items():
        names = {entry.partition(b"=")[0] for entry in found if entry}
        if pid == told:
            assert {b"SECRET", b"ODD", b"LD_BIND_NOW"} <= names
        else:
            assert names <= {b"PATH", b"PORT", b"SESSION_BACKEND_ID", b"PLANE_DRONE", b"PWD"}, names
    first_line = f'{secret}|it\'s "$HOME" \\ `id`\n'
    until(lambda: first_line in cluster.call("GET", f"/ctrl/b/{backend}/logs").body.decode())


def test_variables_that_cannot_be_passed_on_are_refused(cluster: Cluster) -> None:
    for env, says in (({"a.b": "x"}, "'a.b'"), ({"LONG": "x" * 140_000}, "LONG has 140006 bytes")):
        assert says in ended(cluster, "true", env=env)["message"]
    # Together: the kernel counts a pointer for each string. The shell before the command would name none.
    many = ["true", *[""] * 225_000]
    message = ended(cluster, "", command=many, env={"LARGEST": "x" * 100_000})["message"]
    assert "225001 arguments (command)" in message
    assert "the largest is executable.env: LARGEST" in message


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_root_gives_backends_to_a_user_without_rights(cluster: Cluster, isolation: str) -> None:
    nobody = pwd.getpwnam("nobody")
    script = "id -u; id -g; id -G; cat /etc/shadow; grep -E '^(Cap|NoNew)' /proc/self/status | tr '\\t' ' '"
    output = said(cluster, script, isolation=isolation)
    assert output.splitlines()[:3] == [str(nobody.pw_uid), *[str(nobody.pw_gid)] * 2]
    assert "root:" not in output
    assert output.count("Permission denied") == 1
    assert re.findall(r"Cap\w+: (\w+)", output) == ["0" * 16] * 5
    assert "NoNewPrivs: 1" in output
    refused = ended(cluster, "true", isolation=isolation, user="root")["message"]
    assert "--backend-user root" in refused


def test_what_the_drone_was_configured_from_is_hidden(cluster: Cluster) -> None:
    assert "an admin key" in KEYS.read_text()
    output = said(cluster, f"cat {KEYS}; cat {PRIVATE}/secret; ls {PRIVATE}")
    assert "key" not in output.replace(str(KEYS), "")
    assert output.splitlines()[-1] == "shown"
    assert "No such file" in output


def test_a_program_below_a_folder_that_its_user_may_not_enter(cluster: Cluster) -> None:
    shown = ended(cluster, "", command=[str(PRIVATE / "shown/program")])
    assert shown["message"].endswith("shown"), shown
    # The first of its name that may be executed is taken.
    env = {"PATH": f"{PRIVATE}:{PRIVATE}/shown:/usr/bin"}
    (PRIVATE / "program").write_text("#!/bin/sh\necho another\n")
    (PRIVATE / "program").chmod(0o755)
    assert ended(cluster, "", command=["program"], env=env)["message"].endswith("shown")
    for isolation in ("none", "bubblewrap"):
        refused = ended(cluster, "", command=[str(PRIVATE / "program")], isolation=isolation)["message"]
        assert ("--expose" if isolation == "bubblewrap" else "--backend-user") in refused


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_each_backend_has_a_home_of_its_own_that_ends_with_it(cluster: Cluster, isolation: str) -> None:
    script = "mkdir -p ~/.local/share/x && echo made > ~/.local/share/x/file && cat ~/.local/share/x/file"
    script += "; mktemp -d; ls -A $TMPDIR | wc -l; echo $HOME; ls -A ~"
    made, temporary, entries, home, *listed = said(cluster, script, isolation=isolation).splitlines()
    assert made == "made"
    assert entries == "1" if isolation == "none" else int(entries) >= 1
    assert home != os.environ["HOME"]
    assert ".local" in listed
    assert not Path(temporary).exists()
    until(lambda: not Path(home).exists())
    own = said(cluster, "echo $HOME $XDG_CACHE_HOME", isolation=isolation, env={"HOME": "/elsewhere"})
    assert own == "/elsewhere /elsewhere/.cache"


@pytest.mark.parametrize("isolation", ["none", "bubblewrap"])
def test_the_folders_of_a_user_are_its_own_and_can_be_written(cluster: Cluster, isolation: str) -> None:
    # As JupyterLab and code editors do: sockets in the runtime folder, the rest in folders that they make.
    script = """
    touch "$XDG_RUNTIME_DIR/socket" "$TMPDIR/x" && for folder in CONFIG CACHE DATA STATE; do
        eval "path=\\$XDG_${folder}_HOME"; mkdir -p "$path/app" && touch "$path/app/file" && echo "${path#$HOME/}"
    done"""
    output = said(cluster, script.strip(), isolation=isolation)
    assert output.split() == [".config", ".cache", ".local/share", ".local/state"]


def test_an_end_that_isolation_may_have_caused_says_so(cluster: Cluster, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    below = ended(cluster, "", command=[str(program)])["message"]
    assert "--expose" in below
    assert "isolation none" in below
    assert "executable.mount" in ended(cluster, "touch /usr/x; exit 9")["message"]
    assert f"{program} may be" in ended(cluster, f"sh {program}; exit 9")["message"]
