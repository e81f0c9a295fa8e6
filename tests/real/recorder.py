"""A workload that leaves a trace: one line every 2 ms with the clock of all nodes of this machine, while it lives.

python -I -S recorder.py FILE       each line: CLOCK_BOOTTIME in ns, name, role, term
"""

import os
import sys
import time


def main() -> None:
    name, role, term = (os.environ["PAIR_AGENT_" + key] for key in ("NAME", "ROLE", "TERM"))
    trace = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.write(trace, f"{now_ns} {name} {role} {term}\n".encode())
        time.sleep(0.002)


if __name__ == "__main__":
    main()
