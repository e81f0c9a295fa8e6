"""Turns what a workload or a hook writes into lines fit for a log: bounded in length and in number per second.

A workload that writes without end must cost the agent little: what is too much is counted and left out, and whoever
reads it reads more slowly while `flooded`.
"""

from __future__ import annotations

LINE_BYTES_MAX = 2_000
LINES_PER_SECOND_MAX = 200
_WINDOW_NS = 1_000_000_000


class OutputLines:
    """Fed with bytes; gives lines."""

    def __init__(self) -> None:
        self._unfinished = b""
        self._window_since_ns = 0
        self._lines_in_window = 0
        self._left_out = 0

    @property
    def flooded(self) -> bool:
        """Whether lines of this second are being left out."""
        return self._left_out > 0

    def feed(self, data: bytes, now_ns: int) -> list[str]:
        """Returns the lines that `data` completes; the end of the output (b"") completes the last one."""
        *complete, self._unfinished = (self._unfinished + data).split(b"\n")
        if not data or len(self._unfinished) > LINE_BYTES_MAX:
            complete.append(self._unfinished)
            self._unfinished = b""
        lines: list[str] = []
        if now_ns - self._window_since_ns >= _WINDOW_NS:
            if self._left_out:
                lines.append(f"({self._left_out} lines left out, more than {LINES_PER_SECOND_MAX} in a second)")
            self._window_since_ns, self._lines_in_window, self._left_out = now_ns, 0, 0
        for raw in complete:
            line = raw.strip(b"\r")
            if not line:
                continue
            if self._lines_in_window < LINES_PER_SECOND_MAX:
                self._lines_in_window += 1
                lines.append(_printable(line))
            else:
                self._left_out += 1
        return lines


def _printable(line: bytes) -> str:
    text = line[:LINE_BYTES_MAX].decode("utf-8", "replace")
    # Control characters could rewrite a terminal that shows the log.
    shown = "".join(character if character.isprintable() or character == "\t" else "\ufffd" for character in text)
    return shown if len(line) <= LINE_BYTES_MAX else f"{shown} …"
