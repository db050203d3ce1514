"""Deploy the inspection replicas on Ray Serve, declaratively, and wait until they serve."""

import time
from collections.abc import Callable
from typing import Any

from infra.local.ports import free_port
from jobs.session.ray_session import RaySession
from pipeline.errors import ServingError
from pipeline.kafka.capabilities import Capabilities, probe
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings

NEVER_RAN = "The actor never ran"
AGAIN_S = 2.0


def delivery(settings: Settings) -> Capabilities:
    """What the broker promises: as set, or probed once."""
    if settings.kafka.delivery == "auto":
        return probe(settings)
    # Of a broker that is only said to deliver at least once nothing else is known.
    exactly_once = settings.kafka.delivery == "exactly_once"
    return Capabilities(aborts_hidden=exactly_once, end_offsets_exact=exactly_once)


def deploy(
    settings: Settings,
    session: RaySession,
    *,
    exactly_once: bool,
    generation: str = "",
    timeout_s: float = 300.0,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Send the whole configuration; the same one again changes nothing, another replica count only that.

    Another generation has Serve replace the replicas, one at a time.

    Raises:
        ServingError: the application failed, or was not running in time.
    """
    from pipeline.serving.deployment import APPLICATION, serve_config

    ensure_topics(settings)
    drawn = {name: free_port() for name in ("port", "metrics_port") if getattr(settings.serving, name) == 0}
    settings = settings.model_copy(update={"serving": settings.serving.model_copy(update=drawn)})
    client = _client(session)
    metrics_folder = f"{session.folder}/linewatch-metrics"
    config = serve_config(settings, exactly_once=exactly_once, metrics_folder=metrics_folder, generation=generation)
    deadline = time.monotonic() + timeout_s
    _send(client, config, deadline, say)
    told = ""
    while time.monotonic() < deadline:
        application = client.get_serve_details()["applications"].get(APPLICATION, {})
        status, message = application.get("status", "NOT_STARTED"), application.get("message", "")
        if status == "RUNNING":
            return
        if status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ServingError(f"the replicas did not start: {_last_line(message)}")
        if status != told:
            say(f"replicas: {status.lower().replace('_', ' ')}")
            told = status
        time.sleep(0.5)
    raise ServingError(f"the replicas were not running after {timeout_s:.0f} s: {_replica_trouble(application)}")


def _send(client: Any, config: dict[str, Any], deadline: float, say: Callable[[str], None]) -> None:
    """On a busy machine Ray gives the start of Serve's own controller up; the same again finds it there, or starts it.

    Raises:
        ServingError: another reason, or the same until the deadline.
    """
    while True:
        try:
            client.deploy_applications(config)
            return
        except RuntimeError as error:  # Serve's whole story, whose last line is its reason
            reason = _last_line(str(error))
            if NEVER_RAN not in reason or time.monotonic() > deadline:
                raise ServingError(f"Ray Serve did not take the configuration: {reason}") from None
            say("Ray Serve did not start in time; trying again")
            time.sleep(AGAIN_S)


def replicas(session: RaySession) -> list[dict[str, Any]]:
    """The running replicas, as Serve describes them: ids, states, process ids, nodes."""
    from pipeline.serving.deployment import APPLICATION

    application = _client(session).get_serve_details()["applications"].get(APPLICATION, {})
    return [one for d in application.get("deployments", {}).values() for one in d.get("replicas", [])]


def rest_address(session: RaySession) -> str:
    """Where the REST endpoint listens."""
    options = _client(session).get_serve_details().get("http_options", {})
    scheme = "https" if options.get("ssl_certfile") else "http"
    return f"{scheme}://{options.get('host', '127.0.0.1')}:{options.get('port')}"


def metrics_addresses(session: RaySession, say: Callable[[str], None]) -> list[str]:
    """URLs of the metrics of every node with replicas; says which of them nobody answers."""
    from pipeline.serving.exporter import refusals, targets

    for refusal in refusals():
        say(f"! no metrics: {refusal}")
    scheme = rest_address(session).partition(":")[0]
    return [f"{scheme}://{target}/metrics" for target in targets()]


def shut_down() -> None:
    """Let every replica finish and commit its batch, then end Serve."""
    from ray import serve

    from pipeline.serving.exporter import end_exporters

    serve.shutdown()
    end_exporters()


def withdraw() -> None:
    """Take linewatch's application off a shared cluster; every replica finishes and commits its batch first."""
    from ray import serve

    from pipeline.serving.deployment import APPLICATION
    from pipeline.serving.exporter import end_exporters

    serve.delete(APPLICATION)
    end_exporters()


def _client(session: RaySession) -> Any:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    try:
        return ServeSubmissionClient(session.dashboard)
    except ConnectionError:
        raise ServingError(
            f"Ray's dashboard at {session.dashboard} does not answer: is that Ray still running?"
        ) from None


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip(" .")]
    return lines[-1][:400] if lines else "Serve gave no reason"


def _replica_trouble(application: dict[str, Any]) -> str:
    messages = [d.get("message", "") for d in application.get("deployments", {}).values()]
    return _last_line("\n".join(messages))
