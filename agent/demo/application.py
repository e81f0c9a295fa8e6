"""The application that the demo protects: appends a reading to a file every few milliseconds until it is stopped.

    python -I -S application.py FILE

A reading is one line, written by one call so that a kill leaves no half of one: nanoseconds of the boot clock, node,
term, number. The boot clock is the same on both nodes of the demo, so their files can be laid side by side. Knows
nothing of roles: like any protected application it is started and stopped, and its term is in its environment.
"""

from __future__ import annotations

import os
import sys
import time

if __name__ == "__main__":  # run as a file and isolated (-I), so that the package is not on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from agent.platform.clock import boottime_ns

READING_INTERVAL_MS = 10
FILE_BYTES_MAX = 64 * 1024 * 1024  # then the file begins anew: a pair that is kept must not fill the disk


def encode_reading(taken_ns: int, node: str, term: int, number: int) -> bytes:
    """Returns the line of one reading; `taken_ns` is of the boot clock."""
    return f"{taken_ns} {node} {term} {number}\n".encode("ascii")


def main() -> None:
    """Writes readings to the file that the first argument names; ends only by being stopped."""
    node, term = os.environ["PAIR_AGENT_NAME"], int(os.environ["PAIR_AGENT_TERM"])
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    number = 0
    while True:
        number += 1
        written = os.write(file, encode_reading(boottime_ns(), node, term, number))
        if number % (FILE_BYTES_MAX // written) == 0:
            os.ftruncate(file, 0)
        time.sleep(READING_INTERVAL_MS / 1000)


if __name__ == "__main__":
    main()
