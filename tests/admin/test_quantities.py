"""Bytes and times read the same wherever they are said."""

from __future__ import annotations

import pytest

from agent.admin.quantities import age_text, listed, size_text, span_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (34_567, "34.6 kB"),
        (5e9, "5.0 GB"),
        (5e16, "50000.0 TB"),
    ],
)
def test_sizes_have_the_unit_that_fits(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "0 ms"), (999, "999 ms"), (1000, "1 s"), (1001, "2 s"), (7_500_000, "2 h 5 min")]
)
def test_spans_are_rounded_up(milliseconds: int, text: str) -> None:
    assert span_text(milliseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h 0 min"), (172_800, "2 days")],
)
def test_ages_are_whole(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_an_age_that_is_no_number_breaks_no_view(seconds: float) -> None:
    assert age_text(seconds) == "ever"


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_joined_as_in_a_sentence(words: list[str], text: str) -> None:
    assert listed(words) == text
