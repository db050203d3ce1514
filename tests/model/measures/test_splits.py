from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model import is_held_out, split


def digests(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{index}".encode()).hexdigest() for index in range(count)]


def test_about_the_fraction_is_held_out() -> None:
    shas = digests(5000)
    assert 0.18 < sum(is_held_out(sha) for sha in shas) / 5000 < 0.22
    assert not any(is_held_out(sha, 0.0) for sha in shas)
    assert all(is_held_out(sha, 1.0) for sha in shas)


@settings(deadline=None)
@given(st.integers(60, 200), st.integers(0, 200), st.text(max_size=3))
def test_what_is_held_out_stays_so_when_the_collection_grows(count: int, more: int, salt: str) -> None:
    shas = digests(count + more, salt)
    assume(sum(map(is_held_out, shas[:count])) >= 2)  # else others fill up, which growth may make unnecessary
    early = {shas[index] for index in split(shas[:count], minimum=2)[1]}
    late = {shas[index] for index in split(shas, minimum=2)[1]}
    assert early <= late


@settings(deadline=None)
@given(st.integers(0, 80), st.integers(0, 12))
def test_every_image_falls_on_exactly_one_side(count: int, minimum: int) -> None:
    train, held_out = split(digests(count), minimum=minimum)
    assert sorted(train + held_out) == list(range(count))
    assert len(held_out) <= count // 2
    assert len(held_out) >= min(minimum, count // 2)


def test_too_few_are_filled_up_from_the_lowest_digests() -> None:
    shas = digests(24)
    _, held_out = split(shas, fraction=0.0, minimum=8)
    assert {shas[index] for index in held_out} == set(sorted(shas)[:8])


def test_copies_of_an_image_fall_on_the_same_side() -> None:
    shas = digests(40) * 2
    train, held_out = split(shas)
    assert not {shas[index] for index in train} & {shas[index] for index in held_out}


def test_something_that_is_no_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="hex digest"):
        is_held_out("image.png")
    with pytest.raises(ValueError, match="hex digest"):
        is_held_out("")
