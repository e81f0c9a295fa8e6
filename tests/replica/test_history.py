"""I2: whatever befalls a pair, no version that was written on a node or was on both of them vanishes without a trace.

Each history is drawn from its seed, which a failure prints with all that happened. The long ones are run with
`pytest -m long tests/replica/test_history.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from agent.replica import sink, sink_intake, source
from tests.replica.history import live
from tests.replica.version_ledger import Ledger

SEEDS_OF_ONE_TEST = 50


@pytest.fixture(autouse=True)
def _tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sink, sink_intake):
        monkeypatch.setattr(module, "AGAIN_S", 0.2)
    monkeypatch.setattr(source, "REFUSED_AGAIN_S", 0.2)


@pytest.mark.parametrize("seed", [9, 21, 1013, 2095])
def test_i2_nothing_vanishes_and_the_pair_is_in_step_in_the_end(tmp_path: Path, seed: int) -> None:
    trio.run(live, tmp_path, seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(10_000, 14_000, SEEDS_OF_ONE_TEST))
def test_i2_nothing_vanishes_in_many_histories(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + SEEDS_OF_ONE_TEST):
        trio.run(live, tmp_path / str(seed), seed)


# -- the ledger itself


def ledger(*edits: tuple[str, bytes | None, bytes | None]) -> Ledger:
    """Returns the account of one path after edits: on which node, from what to what."""
    account = Ledger()
    for node, before, after in edits:
        account.edited(node, {"x": before} if before else {}, {"x": after} if after else {})
    return account


def test_the_ledger_misses_a_version_that_nothing_was_made_of() -> None:
    account = ledger(("primary", None, b"one"), ("backup", None, b"two"))
    assert len(account.missing({"x": b"two"}, [])) == 1
    assert account.missing({"x": b"two"}, [("x", b"one")]) == []
    assert len(account.missing({"x": b"two"}, [("y", b"one")])) == 1, "in the archive, but under another name"


def test_the_ledger_accepts_what_was_edited_on_top_in_many_steps() -> None:
    account = ledger(("primary", None, b"one"), ("primary", b"one", b"two"), ("backup", b"two", b"three"))
    assert account.missing({"x": b"three"}, []) == []
    assert len(account.missing({}, [])) == 2, "the last one, and the one that both had"
    assert len(account.missing({"x": b"one"}, [])) == 2, "an old version came back"


def test_the_ledger_misses_what_both_had_even_if_the_standby_edited_it() -> None:
    account = ledger(("primary", None, b"one"), ("backup", b"one", b"stray"), ("backup", b"stray", b"more"))
    account.seen("backup", {"x": b"one"})
    final = {"x": b"unrelated"}
    account.seen("primary", final)
    assert [each.split(" stood")[0] for each in account.missing(final, [("x", b"more"), ("x", b"stray")])] == [
        "x: (3 bytes)"
    ]


def test_the_ledger_lets_a_removal_stand() -> None:
    account = ledger(("primary", None, b"one"), ("primary", b"one", None))
    assert account.missing({}, []) == []
    assert len(ledger(("primary", None, b"one")).missing({}, [])) == 1
