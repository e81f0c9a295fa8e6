"""The replica worker: a process beside the agent that keeps the trees of this node in step with the other's.

Run by `agent.node.replication` as a file, with two arguments: what its side channel needs, and the agent's process id.
Orders come over standard input, tellings go over standard output (`agent.replica.worker_protocol`), log lines over
standard error. It ends when it is told to, and at once when standard input ends: without its agent nobody may change
the trees.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import sys
import threading
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the package is found from here, and not this folder's modules as top ones
    sys.path[0] = str(Path(__file__).parent.parent.parent)

import trio

from agent.config.model import Config
from agent.core.errors import PairAgentError
from agent.node.replica_work import Work
from agent.platform.socket_passing import SocketTaker
from agent.replica import worker_protocol as say

READ_BYTES = 64 * 1024
QUIT_S = 3.0
ORDERS = 0  # descriptor
TELLINGS = 1


class Pipes:
    """The pipes to the agent: read by a thread, written in order by another."""

    def __init__(self) -> None:
        self._out = os.dup(TELLINGS)
        os.dup2(2, TELLINGS)  # whatever prints, prints to the log
        self._lock = threading.Lock()

    def tell(self, telling: say.Telling) -> None:
        """Tells the agent; waits while the pipe is full, which it is only for an agent that hangs."""
        data = memoryview(say.encode(telling))
        with self._lock:
            while data:
                data = data[os.write(self._out, data) :]

    def read(self, orders: trio.MemorySendChannel[Any], token: trio.lowlevel.TrioToken) -> None:
        """Reads orders until the agent is gone or says Quit, then ends the process, or the orders."""
        decoder = say.Decoder()
        try:
            while data := os.read(ORDERS, READ_BYTES):
                for order in decoder.feed(data):
                    if isinstance(order, say.Quit):
                        trio.from_thread.run_sync(orders.close, trio_token=token)
                        time.sleep(QUIT_S)  # if it takes longer, it ends as after a crash
                        os._exit(0)
                    trio.from_thread.run_sync(orders.send_nowait, order, trio_token=token)
        except Exception as error:
            print(f"an order cannot be read: {error!r}", file=sys.stderr, flush=True)
        os._exit(0)


async def serve(pipes: Pipes, taker: SocketTaker) -> None:
    """Works until the agent is gone."""
    orders, arriving = trio.open_memory_channel[Any](float("inf"))
    token = trio.lowlevel.current_trio_token()
    threading.Thread(target=pipes.read, args=(orders, token), daemon=True, name="orders").start()
    first = await arriving.receive()
    assert isinstance(first, say.SetUp)
    config: Config = pickle.loads(first.config)  # from the agent, which started this process
    pipes.tell(say.Started(os.getpid()))
    work = Work(config, pipes.tell, taker)
    gc.collect()
    gc.freeze()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        async for order in arriving:
            work.take(order)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Runs the worker; an error that nobody expected is its last line on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    pipes, taker = Pipes(), SocketTaker(sys.argv[1])
    try:
        trio.run(serve, pipes, taker)
    except BaseExceptionGroup as group:
        expected = group.subgroup(PairAgentError)
        if expected is None:
            raise
        first: BaseException = expected
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        print(first, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
