"""Text as a terminal can show it: names may hold line breaks and control codes, and its encoding may lack letters."""

import codecs
import io
import sys

PLAIN = {
    "✓": "+", "✗": "x", "–": "-", "—": "-", "·": "|", "…": "...", "→": "->", "×": "x", "≤": "<=", "≥": ">=", "±": "+-",
    "━": "-", "╸": "-", "╺": "-", "•": "*", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def printable(text: str) -> str:
    """The text on one line: line breaks, tabs, control codes and bytes that are no UTF-8 as escapes.

    >>> printable("new\\nline")
    'new\\\\nline'
    """
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def take_any_text() -> None:
    """From now on: plain letters and escapes where the encoding has no others, also of names that are no UTF-8."""
    codecs.register_error("linewatch-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="linewatch-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_letter(one) for one in error.object[error.start : error.end]), error.end


def _letter(one: str) -> str:
    if one in PLAIN:
        return PLAIN[one]
    if "\u2800" <= one <= "\u28ff":  # rich's spinner
        return "*"
    # As JSON writes it, so that JSON stays JSON, and says the same.
    return "".join(f"\\u{int.from_bytes(pair, 'big'):04x}" for pair in _utf16_pairs(one))


def _utf16_pairs(one: str) -> list[bytes]:
    data = one.encode("utf-16-be", "surrogatepass")
    return [data[start : start + 2] for start in range(0, len(data), 2)]
