from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from infra.local import network
from infra.local.network import Network, find_namespaces


@pytest.fixture
def hosts() -> Iterator[Network]:
    if missing := find_namespaces():
        pytest.skip(f"{missing.why}. {missing.how_to_get}")
    with Network(3) as made:
        yield made


def reaches(hosts: Network, here: int, there: int, patience_s: float = 20) -> bool:
    """Within that time: after a cable is plugged in, hosts look for one another again at their own pace."""
    with hosts.inside(there):
        listener = socket.create_server((hosts.address(there), 0))
    until = time.monotonic() + patience_s
    with listener, hosts.inside(here):
        while True:
            with suppress(OSError):
                socket.create_connection(listener.getsockname(), timeout=0.5).close()
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.05)


def test_hosts_reach_each_other_until_a_cable_is_pulled(hosts: Network) -> None:
    assert reaches(hosts, 1, 0)
    hosts.pull(0)
    assert not reaches(hosts, 1, 0, patience_s=1)
    assert reaches(hosts, 1, 2), "only the first is cut off"
    hosts.plug(0)
    assert reaches(hosts, 1, 0)
    assert reaches(hosts, 2, 0)


def test_a_process_on_a_host_has_its_address_and_nothing_stays_behind(hosts: Network) -> None:
    told = subprocess.run(hosts.on(1, ["ip", "-o", "-4", "addr"]), capture_output=True, text=True, check=True).stdout
    assert hosts.address(1) in told
    outside = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    assert hosts.address(1) not in outside
    hosts.close()
    assert hosts._mark not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_where_there_is_no_root_or_no_ip_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.shutil, "which", lambda _: None)
    missing = find_namespaces()
    assert missing
    assert "no ip program" in missing.why
    monkeypatch.setattr(network.shutil, "which", lambda _: "/sbin/ip")
    monkeypatch.setattr(network.os, "geteuid", lambda: 1000)
    missing = find_namespaces()
    assert missing
    assert "need root" in missing.why
