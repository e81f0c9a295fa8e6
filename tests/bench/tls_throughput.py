"""Measures one way through `TlsStream` between two processes on the loopback interface.

    python tests/bench/tls_throughput.py [--seconds 2] [--rounds 5] [--pin]

For every write size it runs the rounds in turn and prints the median, least and greatest MB/s (10**6 bytes of data),
the processor time that receiver and sender spent on 10**9 bytes (which other work on the machine disturbs less), and
by how much their memory grew between the first and the last round. Not a test: it asserts nothing. `--pin` gives each
process a processor of its own (Linux), for figures that can be compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection

import psutil
import trio

from agent.config.model import Certificates, Credential
from agent.link.identity import Identity, generate_identity, load_identity
from agent.link.tls import client_stream, server_stream

WRITE_BYTES = (16 * 1024, 64 * 1024, 256 * 1024)


def make_identity(own: tuple[str, str], remote: tuple[str, str]) -> Identity:
    return load_identity(Certificates(Credential(own[1], None), Credential(own[0], None), Credential(remote[1], None)))


def pin(processor: int | None) -> None:
    if processor is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {processor})


def receive(own: tuple[str, str], remote: tuple[str, str], pipe: Connection, processor: int | None) -> None:
    pin(processor)
    trio.run(receive_all, make_identity(own, remote), pipe)


async def receive_all(identity: Identity, pipe: Connection) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    pipe.send(listener.socket.getsockname()[1])
    while True:
        stream = server_stream(await listener.accept(), identity)
        await stream.do_handshake()
        first = await stream.receive_some(1)
        if not first:
            return
        received, start_s, cpu_s = 0, time.perf_counter(), time.process_time()
        while data := await stream.receive_some():
            received += len(data)
        pipe.send(
            {
                "megabytes_per_second": received / (time.perf_counter() - start_s) / 1e6,
                "received": received,
                "processor_seconds": time.process_time() - cpu_s,
                "memory_bytes": psutil.Process().memory_info().rss,
                "cipher": stream.cipher,
                "group": stream.group,
            }
        )
        await stream.aclose()


async def send_for(identity: Identity, port: int, write_bytes: int, seconds: float) -> float:
    """Sends for so long and returns the processor time that it took."""
    transport = await trio.open_tcp_stream("127.0.0.1", port)
    stream = client_stream(transport, identity)
    await stream.do_handshake()
    data = os.urandom(write_bytes)
    await stream.send_all(b"1")
    cpu_s = time.process_time()
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        await stream.send_all(data)
    cpu_s = time.process_time() - cpu_s
    await stream.aclose()
    return cpu_s


async def send_nothing(identity: Identity, port: int) -> None:
    stream = client_stream(await trio.open_tcp_stream("127.0.0.1", port), identity)
    await stream.do_handshake()
    await stream.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pin", action="store_true")
    arguments = parser.parse_args()
    one, other = generate_identity("sender"), generate_identity("receiver")
    pipe, far_pipe = multiprocessing.get_context("spawn").Pipe()
    receiver = multiprocessing.get_context("spawn").Process(
        target=receive, args=(other, one, far_pipe, 1 if arguments.pin else None)
    )
    receiver.start()
    pin(0 if arguments.pin else None)
    identity, port = make_identity(one, other), pipe.recv()
    rates: dict[int, list[float]] = {size: [] for size in WRITE_BYTES}
    costs: dict[int, list[tuple[float, float]]] = {size: [] for size in WRITE_BYTES}
    memory: list[tuple[int, int]] = []
    last = {}
    for _ in range(arguments.rounds):
        for size in WRITE_BYTES:
            sender_s = trio.run(send_for, identity, port, size, arguments.seconds)
            last = pipe.recv()
            gigabytes = last["received"] / 1e9
            costs[size].append((last["processor_seconds"] / gigabytes, sender_s / gigabytes))
            rates[size].append(last["megabytes_per_second"])
            memory.append((last["memory_bytes"], psutil.Process().memory_info().rss))
    trio.run(send_nothing, identity, port)
    receiver.join()
    for size, found in rates.items():
        receiver_cost, sender_cost = (statistics.median(cost) for cost in zip(*costs[size], strict=True))
        print(
            f"{size // 1024:4} KiB: {statistics.median(found):6.0f} MB/s ({min(found):.0f} to {max(found):.0f}); "
            f"processor s/GB: receiver {receiver_cost:.2f}, sender {sender_cost:.2f}"
        )
    growth = [(last_bytes - first_bytes) // 1024 for first_bytes, last_bytes in zip(memory[0], memory[-1], strict=True)]
    print(json.dumps({"cipher": last["cipher"], "group": last["group"]}))
    print(f"memory growth over {len(memory)} runs: receiver {growth[0]} KiB, sender {growth[1]} KiB")


if __name__ == "__main__":
    main()
