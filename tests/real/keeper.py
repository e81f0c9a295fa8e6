"""A workload that keeps its state in trees: it notes what it found at its start, then appends lines until it is ended.

python -I -S keeper.py FOLDER       trees FOLDER/data and FOLDER/flows; notes in FOLDER/notes, a trace in FOLDER/trace

A line of the trace: CLOCK_BOOTTIME in ns, name, role, term, every 4 ms. A line of the data, FOLDER/data/lines, every
20 ms: its number, which goes on from the last one found, and the term. A note is JSON, one at the start and one when it
is told to end: the term, how many lines stand there, and at the start the contents of FOLDER/flows/generation-*.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    folder = sys.argv[1]
    name, role, term = (os.environ["PAIR_AGENT_" + key] for key in ("NAME", "ROLE", "TERM"))
    trace, notes, lines = (
        os.open(os.path.join(folder, path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        for path in ("trace", "notes", "data/lines")
    )
    number = os.pread(lines, os.fstat(lines).st_size, 0).count(b"\n")
    flows = os.path.join(folder, "flows")
    generations = set()
    for path in os.listdir(flows):
        if path.startswith("generation-"):
            with open(os.path.join(flows, path)) as file:
                generations.add(file.read())

    def note(**more: object) -> None:
        os.write(notes, json.dumps({"term": int(term), "lines": number, **more}).encode() + b"\n")

    def end(*_: object) -> None:
        note(ended=True)
        os._exit(0)

    note(ended=False, generations=sorted(generations))
    signal.signal(signal.SIGTERM, end)
    ticks = 0
    while True:
        os.write(trace, f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME)} {name} {role} {term}\n".encode())
        if ticks % 5 == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            os.write(lines, f"{number} {term}\n".encode())
            number += 1
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        ticks += 1
        time.sleep(0.004)


if __name__ == "__main__":
    main()
