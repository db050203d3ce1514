"""Which tokens REST takes, and that it takes some wherever other machines reach it."""

from pipeline.errors import SettingsError
from pipeline.settings import Serving
from pipeline.settings.sections import is_loopback

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
