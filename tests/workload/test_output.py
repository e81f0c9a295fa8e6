"""Output becomes lines that a log can bear."""

from __future__ import annotations

from agent.workload.output import LINE_BYTES_MAX, LINES_PER_SECOND_MAX, OutputLines

SECOND = 1_000_000_000


def test_lines_come_whole_however_they_are_cut() -> None:
    text = "first\r\nzweite: ü\n\nlast".encode()
    for size in range(1, len(text) + 1):
        output = OutputLines()
        lines = [line for at in range(0, len(text), size) for line in output.feed(text[at : at + size], 0)]
        assert lines + output.feed(b"", 0) == ["first", "zweite: ü", "last"]


def test_a_line_without_end_is_bounded() -> None:
    output = OutputLines()
    lines = [line for _ in range(100) for line in output.feed(b"x" * 1_000, 0)]
    assert lines
    assert max(len(line) for line in lines) <= LINE_BYTES_MAX + 2


def test_a_flood_is_counted_and_left_out() -> None:
    output = OutputLines()
    output.feed(b"", 5 * SECOND)
    lines = output.feed(b"x\n" * (LINES_PER_SECOND_MAX + 7), 5 * SECOND)
    assert len(lines) == LINES_PER_SECOND_MAX
    assert output.flooded
    later = output.feed(b"calm\n", 6 * SECOND)
    assert later == [f"(7 lines left out, more than {LINES_PER_SECOND_MAX} in a second)", "calm"]
    assert not output.flooded


def test_control_characters_cannot_rewrite_a_terminal() -> None:
    assert OutputLines().feed(b"\x1b[2Jgone\tstays\n", 0) == ["\ufffd[2Jgone\tstays"]
