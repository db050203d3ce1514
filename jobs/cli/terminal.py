"""Any terminal, pipe and log takes what linewatch writes: in plain letters what its encoding has none for."""

import codecs
import io
import sys

PLAIN = {
    "✓": "+", "✗": "x", "–": "-", "—": "-", "·": "|", "…": "...", "→": "->", "×": "x", "≤": "<=", "≥": ">=", "±": "+-",
    "━": "-", "╸": "-", "╺": "-", "•": "*", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def take_any_text() -> None:
    """Also names of files that are not UTF-8, on a terminal that is."""
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
