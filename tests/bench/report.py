"""Figures as a plain table, and what the machine was doing while they were taken.

A row is a list of measured values; its median, least and greatest are shown, never a mean. A ratio is that of two
medians of one run. Judges nothing: the target stands beside the figure.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

HEADINGS = ("what", "median", "min", "max", "n", "unit", "target", "against", "ratio")


@dataclass(frozen=True)
class Row:
    """One line: `values` in `unit`; `against` is the row that the ratio is taken to."""

    what: str
    values: Sequence[float]
    unit: str = "ms"
    target: str = ""
    against: Row | None = field(default=None, repr=False)

    def cells(self) -> tuple[str, ...]:
        """Returns the texts of the columns of HEADINGS."""
        if not self.values:
            return (self.what, "-", "-", "-", "0", self.unit, self.target, "", "")
        median = statistics.median(self.values)
        other, ratio = "", ""
        if self.against is not None and self.against.values:
            base = statistics.median(self.against.values)
            other, ratio = self.against.what, f"{median / base:.2f}" if base else ""
        numbers = (number_text(each) for each in (median, min(self.values), max(self.values)))
        return (self.what, *numbers, str(len(self.values)), self.unit, self.target, other, ratio)


def number_text(number: float) -> str:
    """Returns a number as people read it: whole numbers whole, others with three significant figures or so."""
    if number == int(number) and abs(number) < 1e6:
        return str(int(number))
    return f"{number:.3f}" if abs(number) < 1 else f"{number:.2f}" if abs(number) < 100 else f"{number:.1f}"


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as text, numbers to the right, columns that are empty in all rows left out."""
    right = {HEADINGS.index(name) for name in ("median", "min", "max", "n", "ratio")}
    return aligned([HEADINGS, *(row.cells() for row in rows)], right)


def aligned(lines: Sequence[Sequence[str]], right: Set[int]) -> str:
    """Returns the cells of lines as columns, those in `right` to the right; the first line is the heading.

    Columns that are empty below it are left out.
    """
    shown = [column for column in range(len(lines[0])) if any(line[column] for line in lines[1:])]
    widths = {column: max(len(line[column]) for line in lines) for column in shown}
    return "\n".join(
        "  ".join(
            line[column].rjust(widths[column]) if column in right else line[column].ljust(widths[column])
            for column in shown
        ).rstrip()
        for line in lines
    )


class Noise:
    """What else the machine did during a `with` block, as a sentence in `sentence` afterwards."""

    sentence = ""

    def __enter__(self) -> Noise:
        self._before = _processor_times()
        return self

    def __exit__(self, *_: object) -> None:
        spent = [after - before for before, after in zip(self._before, _processor_times(), strict=True)]
        whole = sum(spent[:8]) or 1
        busy, stolen = 1 - (spent[3] + spent[4]) / whole, spent[7] / whole
        load = " ".join(f"{each:.2f}" for each in os.getloadavg())
        self.sentence = f"processors busy {busy:.0%}, stolen by the host {stolen:.1%}, load {load}"


def machine() -> str:
    """Returns a line about this machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, Python {platform.python_version()} "
        f"({sys.executable}), load {os.getloadavg()[0]:.2f}"
    )


def _processor_times() -> list[int]:
    with open("/proc/stat") as file:
        return [int(each) for each in file.readline().split()[1:]]
