"""No name that passes can leave its key, its path or its line."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline.contracts.names import ProductName, VersionName, camera_source, product_name, version_name
from pipeline.errors import NameRefused

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
VERSION = "20260131T120000Z-0f1e2d3c"
TRICKS = [
    "",
    "a\n",
    "a\r",
    "\na",
    "a/b",
    "..",
    ".",
    "a..b",
    "a\0",
    "-a",
    "_a",
    "a b",
    "Å",
    "a\u0301",
    "ａ",
    "٣",
    "a" * 65,
]
TRICKS += ["a\u202e", "a\\b", "a%2fb", "ﬁ", "a\u2028"]


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_names_no_product(trick: str) -> None:
    with pytest.raises(NameRefused):
        product_name(trick)
    with pytest.raises(ValidationError):
        TypeAdapter(ProductName).validate_python(trick)


@pytest.mark.parametrize(
    "trick", [*TRICKS, VERSION + "\n", "\n" + VERSION, VERSION.upper(), VERSION + "0", "٢" + VERSION[1:]]
)
def test_a_trick_names_no_version(trick: str) -> None:
    with pytest.raises(NameRefused):
        version_name(trick)
    with pytest.raises(ValidationError):
        TypeAdapter(VersionName).validate_python(trick)


@pytest.mark.parametrize(
    "trick",
    [
        "",
        "/",
        "//a",
        "/a/",
        "/a\n",
        "a\n",
        "/../a",
        "/a/..",
        "/a//b",
        "/a/.b",
        "/a b",
        "/" + "/".join("abcdefghi"),
        "/é",
    ],
)
def test_a_trick_names_no_camera(trick: str) -> None:
    with pytest.raises(NameRefused):
        camera_source(trick)


@given(st.text(max_size=80))
@example("bottle\n")
def test_what_names_a_product_is_plain_and_both_checks_agree(text: str) -> None:
    try:
        assert product_name(text) == text
    except NameRefused:
        with pytest.raises(ValidationError):
            TypeAdapter(ProductName).validate_python(text)
        assert not PLAIN.fullmatch(text)
    else:
        assert TypeAdapter(ProductName).validate_python(text) == text
        assert PLAIN.fullmatch(text)


@given(st.from_regex(r"/?[A-Za-z0-9./_\n -]{0,40}", fullmatch=True))
def test_what_names_a_camera_is_a_path_that_stays_where_it_is(text: str) -> None:
    try:
        source = camera_source(text)
    except NameRefused:
        return
    assert source.startswith("/")
    assert not {"", ".", ".."} & set(source[1:].split("/"))
    assert source.isprintable()
    assert camera_source(source) == source


def test_a_bare_camera_name_becomes_a_path() -> None:
    assert camera_source("cam1") == "/cam1"
    assert camera_source("/plant1/hall2/line3/cam1") == "/plant1/hall2/line3/cam1"


def test_a_refusal_shows_what_was_given_in_one_line() -> None:
    with pytest.raises(NameRefused) as caught:
        product_name("x" * 500 + "\n")
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
