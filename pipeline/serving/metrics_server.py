"""`GET /metrics` over HTTP, in a thread. Who must show a token to REST must show one here."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.errors import ServingError, SettingsError
from pipeline.serving.bearer import Door

START_S = 60.0
CONTENT_TYPE = "text/plain; version=0.0.4"


class MetricsServer:
    """Begins to listen when it is made; ends with its process."""

    def __init__(self, host: str, port: int, tls: dict[str, str], exposition: Callable[[], bytes]) -> None:
        """tls: `ssl_certfile` and `ssl_keyfile`, or nothing. exposition: asked at each request."""
        self._exposition = exposition
        self.address = f"{host}:{port}"
        app = Starlette(routes=[Route("/metrics", self._answer)], middleware=[Middleware(Door, tokens=tokens)])
        config = uvicorn.Config(app, host, port, log_level="warning", access_log=False, lifespan="off", **tls)  # type: ignore[arg-type]
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def ready(self) -> str:
        """Its address, once it answers.

        Raises:
            ServingError: the port can't be had.
        """
        begun = time.monotonic()
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() - begun > START_S:
                raise ServingError(f"metrics can't be served at {self.address}: is the port taken?")
            time.sleep(0.05)
        return self.address

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)

    def _run(self) -> None:
        with suppress(SystemExit):  # how uvicorn says that the port is taken; `ready` says so
            self._server.run()

    def _answer(self, _request: Request) -> Response:
        return Response(self._exposition(), media_type=CONTENT_TYPE)


def tokens() -> list[str]:
    """Those of `serving.tokens`, from this process's environment; a file of them is read anew.

    Read here and not by the settings, which load torch: some 500 MB for a process on each node.

    Raises:
        SettingsError: it can't be read.
    """
    variable = "LINEWATCH_SERVING__TOKENS"
    path = os.environ.get(f"{variable}_FILE")
    if not path:
        return os.environ.get(variable, "").split()
    try:
        found = Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE: {path} can't be read: {error}") from None
    if not found:
        raise SettingsError(f"{variable}_FILE: {path} is empty")
    return found
