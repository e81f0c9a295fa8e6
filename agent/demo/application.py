"""The application that the demo protects: puts a reading into a folder every few milliseconds until it is stopped.

    python -I -S application.py FOLDER PAUSE

A reading is a file of one line, written by one call so that a kill leaves no half of one: nanoseconds of the boot
clock, node, term, number. The boot clock is the same on both nodes of the demo, so their readings can be laid side by
side. Numbers go on from the last file that stands in the folder: whoever starts with another node's data goes on with
its numbers. Knows nothing of roles: like any protected application it is started and stopped, and its term is in its
environment. While the file PAUSE exists it writes nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

if __name__ == "__main__":  # run as a file and isolated (-I), so that the package is not on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from agent.platform.clock import boottime_ns

READING_INTERVAL_MS = 50
# A pair that is kept must neither fill the disk nor keep the machine busy.
FILES_KEPT = 5_000
HURRIED_READINGS = 1_200  # of one run; then it takes its time
LEISURELY_INTERVAL_MS = 1_000
SUFFIX = ".txt"


def encode_reading(taken_ns: int, node: str, term: int, number: int) -> bytes:
    """Returns the line of one reading; `taken_ns` is of the boot clock."""
    return f"{taken_ns} {node} {term} {number}\n".encode("ascii")


def file_name(number: int) -> str:
    """Returns the name of the file of the reading with this number."""
    return f"{number:09}{SUFFIX}"


def last_number(folder: str) -> int:
    """Returns the number of the last reading in the folder, 0 if there is none. An empty file was never written."""
    with os.scandir(folder) as entries:
        named = ((entry.name.removesuffix(SUFFIX), entry) for entry in entries)
        return max((int(stem) for stem, entry in named if stem.isdecimal() and entry.stat().st_size), default=0)


def main() -> None:
    """Writes readings to the folder that the first argument names; ends only by being stopped."""
    node, term = os.environ["PAIR_AGENT_NAME"], int(os.environ["PAIR_AGENT_TERM"])
    folder, pause = sys.argv[1:3]
    number, taken = last_number(folder), 0
    while True:
        if not os.path.exists(pause):
            number, taken = number + 1, taken + 1
            with open(os.path.join(folder, file_name(number)), "wb", buffering=0) as file:
                file.write(encode_reading(boottime_ns(), node, term, number))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, file_name(number - FILES_KEPT)))
        time.sleep((READING_INTERVAL_MS if taken < HURRIED_READINGS else LEISURELY_INTERVAL_MS) / 1000)


if __name__ == "__main__":
    main()
