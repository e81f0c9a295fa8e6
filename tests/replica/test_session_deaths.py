"""D1, D2, D11: a worker that dies anywhere in a round leaves a whole tree once it has recovered, and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.replica.test_session_cuts import change, is_over, make_pair, synchronise, write_first
from tests.replica.two_workers import SERVING, Joined, Worker, until

STEPS_MAX = 400  # uses of the index and calls of the disk in one short session


async def die_at(folder: Path, step: int, *, sink_dies: bool, power_lost: bool) -> bool:
    """Lets one worker die at a step of a later round; False if it had fewer."""
    source, sink = make_pair(folder)
    write_first(source.data)
    await synchronise(source, sink)
    old = sink.contents()
    change(source.data)
    new = source.contents()
    dying = sink if sink_dies else source
    if power_lost:
        dying.mortality.watch(dying.index)
    async with Joined(source, sink) as joined:
        dying.mortality.left = step
        await until(is_over(joined, source))
        died = dying.mortality.dead
        dying.mortality.left = None
        if died:
            await dying.crash(power_lost=power_lost)
    if not died:
        return False
    dying.open()
    dying.recover()
    assert not dying.index.applying_trees()
    assert sink.contents() in (old, new), "neither as before nor as after"
    assert source.contents() == new
    await synchronise(source, sink)
    assert sink.contents() == new
    assert sink.archived() == []
    assert not (sink.data / ".pair-agent").exists()
    close(source, sink)
    return True


def close(*workers: Worker) -> None:
    for worker in workers:
        worker.close()


@pytest.mark.parametrize("sink_dies", [True, False], ids=["sink", "source"])
@pytest.mark.parametrize("offset", range(3))
def test_d11_a_worker_that_dies_at_some_step_of_a_round_goes_on_from_a_whole_tree(
    tmp_path: Path, sink_dies: bool, offset: int
) -> None:
    async def main() -> None:
        stride = 33 if sink_dies else 6
        for step in range(offset * stride // 3, STEPS_MAX, stride):
            if not await die_at(tmp_path / str(step), step, sink_dies=sink_dies, power_lost=step % 2 == 0):
                return
        raise AssertionError("more steps than a short session should have")

    trio.run(main)


def test_what_a_source_had_told_and_lost_with_its_power_is_not_left_on_the_sink(tmp_path: Path) -> None:
    """Its index, whose last changes were not durable, knows nothing of the file any more, not even that it is gone."""

    async def main() -> None:
        source, sink = make_pair(tmp_path)
        source.mortality.watch(source.index)
        write_first(source.data)
        await synchronise(source, sink)
        await source.crash(power_lost=True)
        (source.data / "big 0").unlink()
        source.open()
        source.stand = replace(SERVING, data_term=3, alone=True, base_term=2)
        await synchronise(source, sink)
        assert sink.contents() == source.contents()
        close(source, sink)

    trio.run(main)


@pytest.mark.long
@pytest.mark.parametrize("sink_dies", [True, False], ids=["sink", "source"])
@pytest.mark.parametrize("power_lost", [True, False], ids=["power", "process"])
def test_d11_a_worker_that_dies_at_any_step_of_a_round_goes_on_from_a_whole_tree(
    tmp_path: Path, sink_dies: bool, power_lost: bool
) -> None:
    async def main() -> None:
        for step in range(STEPS_MAX):
            if not await die_at(tmp_path / str(step), step, sink_dies=sink_dies, power_lost=power_lost):
                return
        raise AssertionError("more steps than a short session should have")

    trio.run(main)
