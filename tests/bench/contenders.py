"""The product and keepalived behind one face, so that a benchmark drives them in turn with the same faults.

Each trial is whole: started, settled, hurt, measured, ended. So nobody runs beside the one that is being measured. Both
are measured by the same small C program: it is the product's workload and keepalived's notify program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

from tests.bench.namespaces import Network
from tests.bench.product import SETTLE_S, MeasuredPair, now_ns, wait_for

TAKEOVER_WAIT_S = 20.0
SERVICE_ADDRESS = "10.77.0.100"

KEEPALIVED = """global_defs {{
  router_id {name}
  vrrp_version 3
  script_user root
  vrrp_garp_master_repeat 1
  {realtime}
}}
vrrp_instance V {{
  interface eth0
  state BACKUP
  virtual_router_id 51
  priority {priority}
  advert_int {advert_s}
  virtual_ipaddress {{ {address}/24 }}
  notify "{stamp} {file}"
}}
"""


class Contender(Protocol):
    """A pair of nodes on a network, of which the first is active once `start` returns."""

    name: str
    network: Network

    def start(self) -> None: ...

    def kill_active(self) -> int:
        """Kills the active side's program with -9; returns the clock just before, in ns."""

    def taken_over_ns(self, after_ns: int) -> int:
        """Waits for the takeover; returns the first instruction of what the standby side started then."""

    def end(self) -> None: ...

    def close(self) -> None: ...


def stamps(file: Path) -> list[list[str]]:
    """Returns the words of the whole lines that the stamp program wrote: its clock in ns, the term, and more."""
    if not file.exists():
        return []
    return [line.split() for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


class Product:
    """Two agents with the stamp program as workload."""

    def __init__(self, name: str, directory: Path, stamp: Path, *, interval_ms: int, timeout_ms: int) -> None:
        self.name = name
        self.network = Network()
        self.own_times_ns: list[int] = []  # of the takeovers, as the agents tell them
        self.measured = MeasuredPair(
            directory,
            interval_ms=interval_ms,
            timeout_ms=timeout_ms,
            workload=[str(stamp), "stamps"],
            network=self.network,
        )

    def start(self) -> None:
        """Starts both agents; the primary is active then."""
        self.measured.start_in_order()

    def kill_active(self) -> int:
        """See Contender; the agent alone, neither its guardian nor its workload."""
        return self.measured.primary.signal(signal.SIGKILL)

    def taken_over_ns(self, after_ns: int) -> int:
        """See Contender; notes the agent's own time of it as well."""
        backup = self.measured.backup
        started_ns = first_stamp_ns(backup.directory / "stamps", after_ns)
        tail = self.measured.tail(backup)
        wait_for(lambda: tail.last("workload-started") is not None, "the event of the start")
        event = tail.last("workload-started")
        assert event is not None
        self.own_times_ns.append(event["fields"]["at_ns"])
        return started_ns

    def end(self) -> None:
        """Ends both agents."""
        self.measured.kill_both()

    def close(self) -> None:
        """Ends what runs and removes the network."""
        self.measured.close()
        self.network.close()


class Keepalived:
    """Two keepalived with short adverts; the notify program is the stamp program."""

    def __init__(
        self, name: str, directory: Path, stamp: Path, *, advert_ms: int, priorities: tuple[int, int], realtime: bool
    ) -> None:
        """The lower the second of the priorities, the longer keepalived waits beyond three adverts."""
        self.name = name
        self.network = Network()
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes] | None] = [None, None]
        directory.mkdir(parents=True)
        for node in (0, 1):
            text = KEEPALIVED.format(
                name=f"node{node}",
                priority=priorities[node],
                advert_s=advert_ms / 1000,
                address=SERVICE_ADDRESS,
                stamp=stamp,
                file=self.stamps_file(node),
                realtime="vrrp_rt_priority 50\n  vrrp_rlimit_rttime 1000000" if realtime else "",
            )
            (directory / f"{node}.conf").write_text(text)

    def stamps_file(self, node: int) -> Path:
        """Returns the file of the notify program of that node."""
        return self._directory / f"{node}.stamps"

    def pids(self) -> list[int]:
        """Returns the main process ids of both."""
        return [process.pid for process in self._processes if process is not None]

    def changes(self) -> int:
        """Returns how often either node has changed its state so far."""
        return sum(len(stamps(self.stamps_file(node))) for node in (0, 1))

    def start(self) -> None:
        """Starts both; node 0 is master then."""
        self._start(0)
        wait_for(lambda: self._state(0) == "MASTER", "keepalived's master")
        self._start(1)
        wait_for(lambda: self._state(1) == "BACKUP", "keepalived's backup")
        time.sleep(SETTLE_S)

    def kill_active(self) -> int:
        """See Contender; its children first, so that the parent cannot say goodbye for them."""
        process = self._processes[0]
        assert process is not None
        family = descendants(process.pid)
        before_ns = now_ns()
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        return before_ns

    def taken_over_ns(self, after_ns: int) -> int:
        """See Contender."""
        return first_stamp_ns(self.stamps_file(1), after_ns, word="MASTER")

    def end(self) -> None:
        """Ends both and removes what a killed one leaves behind."""
        for node, process in enumerate(self._processes):
            if process is not None:
                for pid in descendants(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
                self._processes[node] = None
                self.network.run_on(node, "address", "flush", "dev", "eth0", "to", f"{SERVICE_ADDRESS}/32")
            for left in self._directory.glob(f"{node}*.pid"):
                left.unlink()
            self.stamps_file(node).unlink(missing_ok=True)

    def close(self) -> None:
        """Ends what runs and removes the network."""
        self.end()
        self.network.close()

    def _start(self, node: int) -> None:
        directory = self._directory
        with (directory / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [
                    *self.network.prefix(node),
                    *("keepalived", "--dont-fork", "--vrrp", "--log-console", "--log-detail"),
                    *("--use-file", str(directory / f"{node}.conf"), "--pid", str(directory / f"{node}.pid")),
                    *("--vrrp_pid", str(directory / f"{node}.vrrp.pid")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _state(self, node: int) -> str:
        found = stamps(self.stamps_file(node))
        return found[-1][-2] if found and len(found[-1]) > 2 else ""


def first_stamp_ns(file: Path, after_ns: int, word: str = "") -> int:
    """Waits for the first stamp after that time, with `word` in its line if one is given, and returns it."""

    def found() -> list[int]:
        return [int(words[0]) for words in stamps(file) if int(words[0]) >= after_ns and (not word or word in words)]

    wait_for(lambda: bool(found()), f"a stamp in {file.name}", TAKEOVER_WAIT_S)
    return found()[0]


def descendants(pid: int) -> list[int]:
    """Returns a process and its children of any degree, the youngest generation first."""
    generation, family = [pid], [pid]
    while generation:
        generation = [child for parent in generation for child in children(parent)]
        family = generation + family
    return family


def children(pid: int) -> list[int]:
    """Returns the children of a process; none if it has ended."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
