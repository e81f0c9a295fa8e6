"""Programs that a benchmark runs on a node: started with their words in a file, awaited, ended with their children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.contenders import descendants
from tests.bench.product import wait_for

END_S = 10.0
_LISTEN = "0A"  # state in /proc/net/tcp


def run(prefix: Sequence[str], command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a program on a node, its words in `log`."""
    with log.open("ab") as words:
        return subprocess.Popen(
            [*prefix, *command], stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
        )


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Ends a program and what it started when the block is over."""
    try:
        yield process
    finally:
        family = descendants(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def wait_until_listening(pid: int, port: int) -> None:
    """Waits until somebody listens on a port in that process's network."""
    wait_for(lambda: listens(pid, port), f"somebody on port {port}")


def listens(pid: int, port: int) -> bool:
    """Tells whether somebody listens on a port in that process's network."""
    wanted = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == _LISTEN:
                    return True
    return False
