"""A real pair with trees, for tests: what stands in them, and the hands that disturb them.

`TreePair` adds to `Pair` two trees, "data" and "flows", with something in them on the primary. A folder below `data`
that ends in `.tmp` is excluded, so a test can put there what must not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.core.record import Record, decode_record_untrusted
from agent.platform.state_file import SlotFile
from tests.real.pair import PROJECT, WAIT_S, Node, Pair

TREES = """
[[tree]]
name = "data"
kind = "data"
path = "data"
exclude = ["*.tmp"]

[[tree]]
name = "flows"
kind = "config"
path = "flows"
"""

KEEPER = [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py")), "."]
PATIENCE_S = 60.0
Contents = dict[str, bytes | str | None]


def contents(folder: Path) -> Contents:
    """Returns what stands in a tree: contents of files, targets of links, None for folders.

    Ours, what is excluded, and what cannot be replicated by its kind are left out.
    """
    found: Contents = {}
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != ".pair-agent" and not name.endswith(".tmp")]
        for name in (*folders, *(name for name in files if not name.endswith(".tmp"))):
            path = Path(here, name)
            with contextlib.suppress(FileNotFoundError):  # replaced at this moment
                if path.is_symlink():
                    found[path.relative_to(folder).as_posix()] = os.readlink(path)
                elif path.is_dir() or path.is_file():
                    found[path.relative_to(folder).as_posix()] = None if path.is_dir() else path.read_bytes()
    return found


def archived(node: Node, path: str) -> list[bytes]:
    """Returns the versions of `tree/path` that the node's archive holds, oldest first."""
    found = sorted((node.directory / "state" / "archive").glob(f"*/{path}*"))
    return [each.read_bytes() for each in found if each.is_file()]


def sentences(node: Node, code: str) -> list[str]:
    """Returns the sentences of all events of one code."""
    return [event["sentence"] for event in node.events() if event["code"] == code]


def reasons(node: Node) -> str:
    """Returns why the node holds a failover for impossible, and what it would lose."""
    status = node.status()
    return " ".join(status["readiness"]["reasons"]) if status else ""


def tree_status(node: Node, name: str) -> dict[str, Any]:
    """Returns the node's status of one tree; an agent that does not answer knows none."""
    return next((tree for tree in node.status().get("trees", ()) if tree["name"] == name), {})


def record_of(node: Node) -> Record:
    """Returns what the node has noted durably; the agent may run."""
    copy = node.directory / "record.copy"
    shutil.copyfile(node.directory / "state" / "record", copy)
    file = SlotFile(copy)
    try:
        payload = file.read().payload
    finally:
        file.close()
    assert payload is not None
    return decode_record_untrusted(payload)


def edit_config(node: Node, old: str, new: str) -> None:
    """Changes agent.toml, for the next start."""
    text = node.config.read_text()
    assert old in text
    node.config.write_text(text.replace(old, new, 1))


def command(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of `pair-agent` against the node's agent."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *words, "--config", str(node.config)],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def worker_pid(node: Node) -> int:
    """Returns the process id of the node's replica worker; 0: none runs now."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(node.pid).children():
            with contextlib.suppress(psutil.Error):
                if any("replica_worker" in word for word in child.cmdline()):
                    return child.pid
    return 0


def kill_worker(node: Node) -> None:
    """Kills the node's replica worker with -9, if one runs."""
    if pid := worker_pid(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_worker_gone(node: Node) -> None:
    """Waits until no replica worker is left of a node whose agent was killed."""
    deadline = time.monotonic() + WAIT_S
    while any(_is_worker_of(process, node.pid) for process in psutil.process_iter()):
        assert time.monotonic() < deadline, f"a replica worker outlives the agent of {node.name}"
        time.sleep(0.02)


def _is_worker_of(process: psutil.Process, agent: int) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return len(words) > 2 and words[1].endswith("replica_worker.py") and words[-1] == str(agent)


def notes(node: Node) -> list[dict[str, Any]]:
    """Returns what the workload of `keeper.py` noted on this node."""
    lines = (node.directory / "notes").read_text().splitlines() if (node.directory / "notes").exists() else []
    return [json.loads(line) for line in lines]


def seeded(default: int) -> random.Random:
    """Returns the chance of a random walk, and prints its seed; PAIR_TEST_SEED sets another."""
    seed = int(os.environ.get("PAIR_TEST_SEED", default))
    print(f"PAIR_TEST_SEED={seed}")
    return random.Random(seed)


def walks(brief: int, long: int, seeds: int = 4) -> list[Any]:
    """Returns (steps, seed) of a random walk: one of few steps, and longer ones for the lane `long`."""
    return [(brief, 1), *(pytest.param(long, seed, marks=pytest.mark.long) for seed in range(2, 2 + seeds))]


def in_sync(node: Node) -> bool:
    status = node.status()
    return bool(status) and status["sync"]["state"] == "in-sync"


class TreePair(Pair):
    """A pair with trees, not started; `rate_kb` bounds what goes over in a second, so that a resync takes its time."""

    def __init__(self, directory: Path, *, rate_kb: int = 0, trees: str = TREES, fill: bool = True, **options: Any):
        sync = f"[sync]\nrate_limit = {rate_kb}\n" if rate_kb else ""
        super().__init__(directory, toml=trees + sync, **options)
        for node in self.nodes if fill else ():
            for name in ("data", "flows"):
                (node.directory / name).mkdir()
        if fill:
            (self.tree(self.primary) / "sub" / "empty").mkdir(parents=True)
            (self.tree(self.primary) / "one.txt").write_text("one")
            (self.tree(self.primary) / "sub" / "two.bin").write_bytes(os.urandom(300_000))
            (self.tree(self.primary) / "link").symlink_to("sub/two.bin")
            (self.tree(self.primary, "flows") / "flow.json").write_text("{}")

    def tree(self, node: Node, name: str = "data") -> Path:
        """Returns where a tree stands on a node."""
        return node.directory / name

    def same(self) -> bool:
        """Tells whether both trees are the same on both nodes, now, but for what the workload appends all the time."""
        for name in ("data", "flows"):
            here, there = (contents(self.tree(node, name)) for node in self.nodes)
            if here != there and {**here, "lines": b""} != {**there, "lines": b""}:
                return False
        return True

    def wait_for(self, condition: Callable[[], bool], what: str, bound_s: float = PATIENCE_S) -> None:
        """See `Pair.wait_for`; a copy and its retries may take their time on a busy machine."""
        try:
            super().wait_for(condition, what, bound_s)
        except AssertionError as error:
            shown = ("role", "reason", "readiness", "trees", "sync")
            for node in self.nodes:
                status = node.status()
                error.add_note(f"{node.name}: { ({name: status.get(name) for name in shown}) }")
            raise

    def wait_in_sync(self, bound_s: float = PATIENCE_S) -> None:
        """Waits until both say that they are in sync, and the trees are the same."""
        self.wait_for(lambda: self.same() and in_sync(self.backup) and in_sync(self.primary), "in sync", bound_s)

    def other(self, node: Node) -> Node:
        """Returns the node that is not `node`."""
        return self.backup if node is self.primary else self.primary


@contextlib.contextmanager
def running_tree_pair(directory: Path, **options: Any) -> Iterator[TreePair]:
    """A pair with trees that is in sync, and ended afterwards."""
    pair = TreePair(directory, **options)
    try:
        pair.start()
        yield pair
    finally:
        pair.close()
