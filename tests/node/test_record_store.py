"""The record on the disk: what is lost is said, and a damaged record is never a new one."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
import trio

from agent.core.errors import StateError
from agent.core.record import Record
from agent.core.vocabulary import Mode
from agent.node.record_store import RECORD_FILE, RecordStore, forget_pair
from agent.platform.locks import DirectoryLock

KNOWN = Record(mode="primary", term=41, active_term=41, term_lane=1, pair_id=b"p" * 16, peer_name="b")


def load(directory: Path, lost: list[str]) -> Record:
    store = RecordStore(directory)
    try:
        return store.load(Mode.PRIMARY, lost.append)
    finally:
        store.close()


def save(directory: Path, record: Record) -> None:
    store = RecordStore(directory)
    store.load(Mode.PRIMARY, print)
    trio.run(store.store, record)
    store.close()


def test_stored_record_comes_back(tmp_path: Path) -> None:
    lost: list[str] = []
    assert load(tmp_path, lost) == Record(mode="primary", term_lane=1)
    save(tmp_path, KNOWN)
    assert load(tmp_path, lost) == KNOWN
    assert not lost


@pytest.mark.parametrize("damage", [b"", b"garbage", bytes(8192)])
def test_d8_damaged_record_is_said_and_kept_and_not_taken_for_new(tmp_path: Path, damage: bytes) -> None:
    save(tmp_path, KNOWN)
    (tmp_path / RECORD_FILE).write_bytes(damage)
    lost: list[str] = []
    assert load(tmp_path, lost).damaged
    assert len(lost) == 1
    assert [path.read_bytes() for path in tmp_path.glob("record.damaged-*")] == [damage]
    assert load(tmp_path, []).damaged  # also after another restart


def test_d8_record_with_one_lost_slot_skips_terms(tmp_path: Path) -> None:
    save(tmp_path, KNOWN)
    path = tmp_path / RECORD_FILE
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    lost: list[str] = []
    assert load(tmp_path, lost).term > KNOWN.term + 2
    assert lost


def test_d8_record_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    save(tmp_path, KNOWN)
    path = tmp_path / RECORD_FILE
    store = RecordStore(tmp_path)
    store.load(Mode.PRIMARY, print)
    store._file.write(msgpack.packb({"version": 99}))
    store.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="newer"):
        load(tmp_path, [])
    assert path.read_bytes() == before


def test_forgotten_pair_keeps_its_terms(tmp_path: Path) -> None:
    save(tmp_path, KNOWN)
    assert forget_pair(tmp_path)
    record = load(tmp_path, [])
    assert (record.paired, record.term, record.active_term) == (False, 41, 41)
    assert not forget_pair(tmp_path)


def test_pair_is_not_forgotten_under_a_running_agent(tmp_path: Path) -> None:
    save(tmp_path, KNOWN)
    with DirectoryLock(tmp_path), pytest.raises(StateError):
        forget_pair(tmp_path)
