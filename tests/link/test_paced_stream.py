"""A flood of handshakes takes turns: what is timed runs in between."""

from __future__ import annotations

import trio
import trio.testing

from agent.link.paced_stream import PacedStream, Turnstile


def test_s4_one_passes_in_each_turn_of_the_loop_and_others_run_in_between() -> None:
    order: list[str] = []

    async def stranger(turnstile: Turnstile) -> None:
        await turnstile.pass_through()
        order.append("stranger")

    async def heart() -> None:
        for _ in range(10):
            order.append("heart")
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        turnstile = Turnstile()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(stranger, turnstile)
            nursery.start_soon(heart)

    trio.run(main)
    last_beat = len(order) - 1 - order[::-1].index("heart")
    assert order[: last_beat + 1].count("stranger") <= 11


def test_free_stream_waits_for_no_turn() -> None:
    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        client = await trio.open_tcp_stream("127.0.0.1", port)
        turnstile = Turnstile()
        async with client, listeners[0], await listeners[0].accept() as accepted:
            paced = PacedStream(accepted, turnstile)
            await client.send_all(b"ab")
            async with trio.open_nursery() as nursery:

                async def hold_up() -> None:
                    async with turnstile._lock:
                        await trio.sleep_forever()

                nursery.start_soon(hold_up)
                await trio.testing.wait_all_tasks_blocked()
                with trio.move_on_after(0.2) as scope:
                    await paced.receive_some(1)
                assert scope.cancelled_caught
                paced.let_free()
                with trio.fail_after(5):
                    assert await paced.receive_some(1) == b"b"
                nursery.cancel_scope.cancel()
            await paced.send_all(b"c")
            await paced.wait_send_all_might_not_block()
            await paced.send_eof()
            assert await client.receive_some() == b"c"
            await paced.aclose()

    trio.run(main)
