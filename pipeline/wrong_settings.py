"""What is wrong with a setting, in words: where it was set, which one it is, and the rule that it breaks."""

import json
import os
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.contracts.names import NAME_PATTERN

PREFIX = "LINEWATCH_"
SEE = "(see docs/configuration.md)"
SHOWN_CHARACTERS = 60


class Rule(NamedTuple):
    """A pattern, and what it says: nobody reads a pattern at three in the morning."""

    pattern: str
    words: str


HOST = r"(\[[0-9A-Fa-f:.]+\]|[^\s,:/@\[\]]+)"
PORT = r":([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
ADDRESSES = Rule(
    rf"^\s*{HOST}{PORT}\s*(,\s*{HOST}{PORT}\s*)*$",
    "must be host:port, or several of them with commas between",
)
BUCKET = Rule(
    r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$",
    "must be 3 to 63 lower-case letters, digits and '-', with no '-' at either end",
)
DATABASE = Rule(r"^(sqlite:///[^?]+|postgresql://.+)$", "must be sqlite:///FILE, or postgresql://USER@HOST:PORT/NAME")
DEVICE = Rule(r"^(auto|cpu|cuda(:[0-9]+)?)$", "must be auto, cpu, cuda, or cuda:N for one of several")
ENDPOINT = Rule(
    rf"^https?://{HOST}({PORT})?/?$",
    "must be http:// or https:// and a host, with :port where it has one, and nothing behind",
)
TOPIC_PREFIX = Rule(
    r"^[a-z0-9][a-z0-9-]{0,40}$", "must be 1 to 41 lower-case letters, digits and '-', and not begin with '-'"
)
URL = Rule(rf"^https?://{HOST}({PORT})?(/[^\s?#]*)?$", "must be http:// or https://, a host, and a path at most")
PRODUCT = Rule(NAME_PATTERN, "can't name a product: 1 to 64 letters, digits, '_' and '-', the first no '_' or '-'")
RULES = {
    rule.pattern: rule.words for rule in (ADDRESSES, BUCKET, DATABASE, DEVICE, ENDPOINT, TOPIC_PREFIX, URL, PRODUCT)
}

WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "model_type": "must be a mapping of settings",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
}
WITHOUT_VALUE = ("model_type", "dict_type", "extra_forbidden", "value_error")


def in_words(
    error: ValidationError, where: str, secrets: Collection[tuple[str, str]], within: Sequence[str] = ()
) -> str:
    """The first mistake in one line.

    Args:
        where: the file, or what else sets it where no variable does.
        within: parts of the name before those that the error knows.
    """
    first = error.errors(include_url=False)[0]
    parts = [*within, *(str(part) for part in first["loc"] if part != "[key]")]
    name, rule = ".".join(parts), _rule(first)
    of_several = first["type"] == "value_error" and not _is_setting(parts)
    if of_several:  # of values that don't fit together: it names them itself
        variables = [
            one for said in re.findall(r"[a-z0-9_]+\.[a-z0-9_]+", rule) if (one := variable_of(said.split(".")))
        ]
        name, place = "", " and ".join(variables) or where
    else:
        place = variable_of(parts) or where
    value = "" if first["type"] in WITHOUT_VALUE or tuple(parts[:2]) in secrets else f", not {_shown(first['input'])}"
    named = f"{name}{':' if first['type'] == 'value_error' else ''} " if name else ""
    return f"{place}: {named}{rule}{value} {SEE}"


def _is_setting(parts: Sequence[str]) -> bool:
    """Whether it names a setting, and not a section of them."""
    return len(parts) > 2 and parts[-1] != "fit" if parts[:1] == ["products"] else len(parts) > 1


def variable_of(parts: Sequence[str]) -> str | None:
    """The environment variable that sets a setting, or the one whose JSON holds it; None where none is set."""
    found = {name.upper(): name for name in os.environ if name.upper().startswith(PREFIX)}
    for length in range(len(parts), 0, -1):
        name = f"{PREFIX}{'__'.join(parts[:length])}".upper()
        if name in found:
            return found[name]
    return None


def not_json() -> str | None:
    """Which variable should hold a mapping as JSON and holds no JSON, in one line without its value."""
    for name in sorted(os.environ):
        parts = name.removeprefix(PREFIX).lower().split("__")
        whole = len(parts) == 1 or parts[-1] == "fit"  # a section, or one product's fit options
        if name.upper().startswith(PREFIX) and whole and not _is_json(os.environ[name]):
            return f"{name}: {'.'.join(parts)} must be a mapping as JSON, such as '{{\"steps\": 300}}' {SEE}"
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _rule(first: ErrorDetails) -> str:
    kind, context = first["type"], first.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return RULES[context["pattern"]]
    if kind == "extra_forbidden":
        return "is no setting: is its name misspelt?"
    if kind == "value_error":
        return first["msg"].removeprefix("Value error, ")
    words, context = WORDS.get(kind), {name: _plain(value) for name, value in context.items()}
    return words.format(**context) if words else f"is wrong: {first['msg']}"


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
