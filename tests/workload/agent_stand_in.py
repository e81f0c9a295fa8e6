"""A small agent for tests that kill it: runs a supervisor, listens, renews the lease, says what happens.

Arguments: a folder, the lease in milliseconds (0: none), and the workload's command. Writes to "said" in the folder.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import trio

from agent.config.model import Hooks, Workload, WorkloadKind
from agent.core.vocabulary import Mode
from agent.platform.clock import boottime_ns
from agent.workload.events import WorkloadEvent, WorkloadIdentity, WorkloadStarted
from agent.workload.leftover import clean_up_leftover
from agent.workload.supervisor import Supervisor


async def main(folder: Path, lease_ms: int, command: list[str]) -> None:
    state_directory = folder / "state"
    state_directory.mkdir(exist_ok=True)
    clean_up_leftover(state_directory)
    listener = socket.create_server(("127.0.0.1", 0))
    said = (folder / "said").open("a", buffering=1)

    def report(event: WorkloadEvent) -> None:
        said.write(f"{event}\n")
        if isinstance(event, WorkloadStarted):
            (folder / "pid.new").write_text(str(event.pid))
            (folder / "pid.new").rename(folder / "pid")

    supervisor = Supervisor(
        Workload(kind=WorkloadKind.PROCESS, command=tuple(command), working_directory=folder),
        Hooks(),
        state_directory=state_directory,
        identity=WorkloadIdentity(Mode.PRIMARY, "north", lambda: "south"),
        report=report,
        inherited_sockets=[listener],
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        (folder / "port").write_text(str(listener.getsockname()[1]))
        if lease_ms:
            supervisor.renew_lease(boottime_ns() + lease_ms * 1_000_000)
        supervisor.activate(2)
        while True:
            await trio.sleep(lease_ms / 4_000 if lease_ms else 1)
            if lease_ms:
                until_ns = boottime_ns() + lease_ms * 1_000_000
                supervisor.renew_lease(until_ns)
                (folder / "lease.new").write_text(str(until_ns))
                (folder / "lease.new").rename(folder / "lease")


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
