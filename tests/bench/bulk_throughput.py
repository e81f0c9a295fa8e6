"""Measures one way through a bulk connection between two processes on the loopback interface.

    python tests/bench/bulk_throughput.py [--seconds 2] [--rounds 5] [--pin] [--compress]

For every size of piece it runs the rounds in turn and prints the median, least and greatest MB/s (10**6 bytes of data)
and the processor time that receiver and sender spent on 10**9 bytes (median and least), to be read like those of
`tls_throughput.py`. Pieces of 4 KiB are gathered into larger writes. The data is random; with `--compress` the stream
may try to compress it, which it does where the loopback interface of a busy machine looks slow. Asserts nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import time
from multiprocessing.connection import Connection

import trio

from agent.link.bulk import open_bulk_client, open_bulk_server
from agent.link.bulk_stream import Data
from agent.link.identity import Identity, generate_identity
from tests.bench.tls_throughput import make_identity, pin

PIECE_BYTES = (4 * 1024, 256 * 1024, 1024 * 1024)
KEY = bytes(32)


def receive(own: tuple[str, str], remote: tuple[str, str], pipe: Connection, processor: int | None) -> None:
    pin(processor)
    trio.run(receive_all, make_identity(own, remote), pipe)


async def receive_all(identity: Identity, pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pipe.send(listening.getsockname()[1])
        while pipe.recv():
            accepted, _ = listening.accept()
            stream = await open_bulk_server(accepted, b"", identity, KEY)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run)
                await stream.receive()
                received, start_s, cpu_s = 0, time.perf_counter(), time.process_time()
                while isinstance(item := await stream.receive(), Data):
                    received += len(item.view)
                    item.release()
                pipe.send((received, time.perf_counter() - start_s, time.process_time() - cpu_s))
                await stream.send_payload(b"done")
                await stream.flush()
                await stream.receive()
                await stream.aclose()


async def send_for(identity: Identity, port: int, piece_bytes: int, seconds: float, compress: bool) -> float:
    """Sends for so long and returns the processor time that it took."""
    stream = await open_bulk_client("127.0.0.1", port, identity, KEY)
    if not compress:
        stream._compression.shrunk = lambda *_: None  # type: ignore[method-assign]  # what is measured is the way
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        data = os.urandom(piece_bytes)
        await stream.send_payload(b"begin")
        await stream.flush()
        cpu_s = time.process_time()
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            for _ in range(16):
                await stream.send_data(data)
        await stream.send_payload(b"end")
        await stream.flush()
        cpu_s = time.process_time() - cpu_s
        await stream.receive()
        await stream.aclose()
    return cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--compress", action="store_true")
    arguments = parser.parse_args()
    one, other = generate_identity("sender"), generate_identity("receiver")
    pipe, far_pipe = multiprocessing.get_context("spawn").Pipe()
    receiver = multiprocessing.get_context("spawn").Process(
        target=receive, args=(other, one, far_pipe, 1 if arguments.pin else None)
    )
    receiver.start()
    pin(0 if arguments.pin else None)
    identity, port = make_identity(one, other), pipe.recv()
    found: dict[int, list[tuple[float, float, float]]] = {size: [] for size in PIECE_BYTES}
    for _ in range(arguments.rounds):
        for size, figures in found.items():
            pipe.send(True)
            sender_s = trio.run(send_for, identity, port, size, arguments.seconds, arguments.compress)
            received, elapsed_s, receiver_s = pipe.recv()
            gigabytes = received / 1e9
            figures.append((received / elapsed_s / 1e6, receiver_s / gigabytes, sender_s / gigabytes))
    pipe.send(False)
    receiver.join()
    for size, figures in found.items():
        rate, receiver_cost, sender_cost = zip(*figures, strict=True)
        print(
            f"{size // 1024:4} KiB: {statistics.median(rate):6.0f} MB/s ({min(rate):.0f} to {max(rate):.0f}); "
            f"processor s/GB: receiver {statistics.median(receiver_cost):.2f} (least {min(receiver_cost):.2f}), "
            f"sender {statistics.median(sender_cost):.2f} (least {min(sender_cost):.2f})"
        )


if __name__ == "__main__":
    main()
