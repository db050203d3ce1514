"""Who may ask REST: whoever has one of the tokens; anyone, where only this machine reaches it."""

import hmac
import logging
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.errors import ServingError, SettingsError
from pipeline.settings import Serving
from pipeline.settings.sections import is_loopback

log = logging.getLogger(__name__)
OPEN = "/healthz"
LEAST_CHARACTERS = 16
TOKENS = "LINEWATCH_SERVING__TOKENS"


def tokens_of(serving: Serving) -> list[str]:
    """Those that are good now: a file of them is read anew.

    Raises:
        SettingsError: it can't be read, or one of them is too short.
    """
    found = serving.tokens.get_secret_value().split() if serving.tokens else []
    if any(len(one) < LEAST_CHARACTERS for one in found):
        raise SettingsError(f"serving.tokens: each needs at least {LEAST_CHARACTERS} characters ({TOKENS})")
    return found


def require_door(serving: Serving) -> None:
    """Raises SettingsError where other machines could ask and nobody would ask them who they are."""
    if tokens_of(serving) or serving.allow_anonymous or is_loopback(serving.host):
        return
    raise SettingsError(
        f"serving.host {serving.host} is reached from other machines: set {TOKENS}, or {TOKENS}_FILE to a file of "
        "them, or serving.allow_anonymous to answer whoever asks"
    )


class Door:
    """ASGI, in front of the app. Without tokens everybody passes; health is for everybody."""

    def __init__(self, app: ASGIApp, serving: Callable[[], Serving]) -> None:
        """serving: asked at each request; raises ServingError where the replica is still starting."""
        self._app, self._serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") == OPEN:
            return await self._app(scope, receive, send)
        refusal = self._refusal(dict(scope["headers"]).get(b"authorization", b""))
        return await (refusal or self._app)(scope, receive, send)

    def _refusal(self, authorization: bytes) -> JSONResponse | None:
        try:
            tokens = tokens_of(self._serving())
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
