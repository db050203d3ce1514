"""What a terminal says of a line while it runs: each stall once, and that it is over."""

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

ASK_EACH_S = 3.0
ANSWER_WITHIN_S = 10.0


def watch(
    address: str, say: Callable[[str], None], stop: threading.Event | None = None, cert_file: str | None = None
) -> None:
    """Ask the replicas for their health every few seconds, until ``stop`` or Ctrl-C.

    cert_file: of the certificate that answers there, whatever name and authority it has.
    """
    stop = stop or threading.Event()
    context = _only(cert_file) if cert_file else None
    told: dict[str, str] = {}
    while not stop.wait(ASK_EACH_S):
        told = changes(told, standing(_health(f"{address}/healthz", context)), say)


def standing(health: dict[str, Any] | None) -> dict[str, str]:
    """What stands still, and the line that says so."""
    if health is None:
        return {"replicas": "no replica answers: Serve starts another, and Ray's dashboard shows why"}
    found = {}
    for one in health.get("stalls", []):
        where = "the line" if one["partition"] is None else f"partition {one['partition']}"
        found[where] = f"{where} has been standing still since {one['since']}: {one['reason']}"
    if health["reason"]:
        found["replica"] = f"a replica is not healthy: {health['reason']}"
    return found


def changes(before: dict[str, str], now: dict[str, str], say: Callable[[str], None]) -> dict[str, str]:
    for where in now.keys() - before.keys():
        say(f"! {now[where]}")
    for where in before.keys() - now.keys():
        say(f"{where} goes on" if where not in ("replica", "replicas") else "the replicas are well again")
    return now


def _only(cert_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cert_file)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _health(url: str, context: ssl.SSLContext | None) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_WITHIN_S, context=context) as response:
            return _read(response.read())
    except urllib.error.HTTPError as error:  # 503 has the same body
        return _read(error.read())
    except OSError:
        return None


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "healthy" in found else None
