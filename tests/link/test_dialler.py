"""When the backup dials again."""

from __future__ import annotations

import trio
import trio.testing

from agent.link.dialler import Dialler, Outcome, Target
from tests.link.tls_material import good_pair


def test_an_attempt_that_nobody_answered_is_followed_by_the_next_without_another_delay() -> None:
    """Attempts begin a reconnect delay apart, so a backup has dialled more than once before it takes over."""

    identity, _ = good_pair()

    async def scene() -> list[int]:
        ended_ms: list[int] = []
        with trio.socket.socket() as deaf:
            await deaf.bind(("127.0.0.1", 0))
            deaf.listen(16)
            target = Target("127.0.0.1", deaf.getsockname()[1], connection_timeout_ms=200, reconnect_delay_ms=300)

            def failed(outcome: Outcome, sentence: str) -> None:
                assert outcome is Outcome.NO_ANSWER, sentence
                ended_ms.append(round(trio.current_time() * 1000))
                if len(ended_ms) == 3:
                    scope.cancel()

            async def never(_stream: object, _address: str) -> bool:
                raise AssertionError("nobody answered")

            with trio.CancelScope() as scope:
                await Dialler(target, lambda: identity, on_stream=never, on_failed=failed).run()
        return ended_ms

    first, second, third = trio.run(scene, clock=trio.testing.MockClock(autojump_threshold=0.02))
    assert (second - first, third - second) == (300, 300)
