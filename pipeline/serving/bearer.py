"""Who may ask over HTTP: whoever has one of the tokens; anyone, where there are none. It knows no settings."""

import hmac
import logging
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.errors import ServingError, SettingsError

log = logging.getLogger(__name__)
OPEN = "/healthz"


class Door:
    """ASGI, in front of the app. Without tokens everybody passes; health is for everybody."""

    def __init__(self, app: ASGIApp, tokens: Callable[[], list[str]]) -> None:
        """tokens: asked at each request; raises ServingError where the replica is still starting, SettingsError where
        they can't be read.
        """
        self._app, self._tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") == OPEN:
            return await self._app(scope, receive, send)
        refusal = self._refusal(dict(scope["headers"]).get(b"authorization", b""))
        return await (refusal or self._app)(scope, receive, send)

    def _refusal(self, authorization: bytes) -> JSONResponse | None:
        try:
            tokens = self._tokens()
        except ServingError as error:
            return _no(503, "ServingError", str(error))
        except SettingsError as error:
            log.error("REST lets nobody in: %s", error)
            return _no(503, "SettingsError", "the tokens can't be read: see the replica's log")
        kind, _, given = authorization.partition(b" ")
        # All of them, whichever it is: how long it takes tells nothing.
        good = [hmac.compare_digest(given.strip(), one.encode()) for one in tokens]
        if not tokens or (kind.lower() == b"bearer" and any(good)):
            return None
        return _no(401, "TokenRefused", "send 'Authorization: Bearer TOKEN' with a token that is good now")


def _no(status: int, kind: str, message: str) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": kind, "message": message}, status, headers)
