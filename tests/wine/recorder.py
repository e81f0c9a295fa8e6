"""A workload that leaves a trace on either system: one line every few milliseconds while it lives.

    python -I -S recorder.py FILE       each line: wall clock in ns, name, role, term

Windows and Linux have no other clock in common here, and one machine runs both, so nobody sets it in between.
"""

import os
import sys
import time


def main() -> None:
    name, role, term = (os.environ["PAIR_AGENT_" + key] for key in ("NAME", "ROLE", "TERM"))
    with open(sys.argv[1], "ab", buffering=0) as trace:
        while True:
            trace.write(f"{time.time_ns()} {name} {role} {term}\n".encode())
            time.sleep(0.005)


if __name__ == "__main__":
    main()
