"""rsync through stunnel as a copier: TLS 1.3 with AES-128-GCM from node 0 of a network to node 1.

A client on node 0 is told what to copy; its daemon on node 1 listens on loopback only, and a stunnel on each node
carries it across. Both stunnels prove who they are, as the product's nodes do.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from agent.link.identity import generate_identity
from tests.bench.copier import Copied
from tests.bench.data_sets import Stage, flush
from tests.bench.namespaces import ADDRESSES, Network
from tests.bench.processes import ended, run, wait_until_listening
from tests.bench.usage import PeakMemory, processor_s

RSYNC_PORT, TUNNEL_PORT, ENTRANCE_PORT = 8730, 8731, 8732

DAEMON = """use chroot = no
uid = 0
gid = 0
reverse lookup = no
[tree]
path = {destination}
read only = no
"""
TUNNEL = """foreground = yes
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[rsync]
client = {client}
accept = {accept}
connect = {connect}
cert = {pem}
CAfile = {pem}
verifyPeer = yes
sslVersionMin = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
"""


class Rsync:
    """rsync -a through stunnel; the options are those that every copy gets."""

    def __init__(self, name: str, network: Network, *options: str) -> None:
        self.name = name
        self._network = network
        self._options = options
        key, certificate = generate_identity("tunnel")
        self._pem = key + certificate

    def copy(self, stage: Stage, directory: Path) -> Copied:
        """See Copier; from the start of the client. Durable: syncfs of the destination right after the client's end."""
        with contextlib.ExitStack() as end:
            servers = self._servers(stage, directory, end)
            daemon, far, near = (process.pid for process in servers)
            stage.change()
            memory = PeakMemory()
            for node, pid in ((1, daemon), (1, far), (0, near)):
                memory.add(node, pid)
            spent_s, carried = processor_s([daemon, far, near]), self._network.carried_bytes()
            with memory:
                start = time.monotonic()
                client = run(
                    self._network.prefix(0),
                    ["rsync", "-a", *self._options, f"{stage.source}/", f"rsync://127.0.0.1:{ENTRANCE_PORT}/tree/"],
                    directory / "client.log",
                )
                memory.add(0, client.pid)
                _, status, used = os.wait4(client.pid, 0)
                client.returncode = os.waitstatus_to_exitcode(status)
                finished = time.monotonic()
                flush(stage.destination)
                durable = time.monotonic()
            carried = self._network.carried_bytes() - carried
            if client.returncode != 0:
                raise RuntimeError(f"rsync ended with {client.returncode}: {(directory / 'client.log').read_text()}")
            spent_s = processor_s([daemon, far, near]) - spent_s + used.ru_utime + used.ru_stime
            return Copied(finished - start, durable - start, carried, spent_s, memory.of_node_mb, memory.of_process_mb)

    def _servers(self, stage: Stage, directory: Path, end: contextlib.ExitStack) -> list[subprocess.Popen[bytes]]:
        near, far = self._network.prefix(0), self._network.prefix(1)
        pem = directory / "tunnel.pem"
        pem.touch(mode=0o600)
        pem.write_text(self._pem)
        (directory / "daemon.conf").write_text(DAEMON.format(destination=stage.destination))
        crossing, inside = f"{ADDRESSES[1]}:{TUNNEL_PORT}", f"127.0.0.1:{RSYNC_PORT}"
        for name, client, accept, connect in (
            ("far", "no", crossing, inside),
            ("near", "yes", f"127.0.0.1:{ENTRANCE_PORT}", crossing),
        ):
            text = TUNNEL.format(client=client, accept=accept, connect=connect, pem=pem)
            (directory / f"{name}.conf").write_text(text)
        daemon = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={RSYNC_PORT}"]
        started = []
        for prefix, command, port in (
            (far, [*daemon, f"--config={directory / 'daemon.conf'}"], RSYNC_PORT),
            (far, ["stunnel4", str(directory / "far.conf")], TUNNEL_PORT),
            (near, ["stunnel4", str(directory / "near.conf")], ENTRANCE_PORT),
        ):
            process = end.enter_context(ended(run(prefix, command, directory / f"{port}.log")))
            wait_until_listening(process.pid, port)
            started.append(process)
        return started
