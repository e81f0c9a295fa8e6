"""The product's words as enums: one word per thing, in code, on the wire, in status, on the page and in the log."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """What a node is configured to be (`mode` in agent.toml)."""

    STAND_ALONE = "stand-alone"
    PRIMARY = "primary"
    BACKUP = "backup"


class Role(StrEnum):
    """What a node is at run time."""

    STARTING = "starting"
    INITIAL_STANDBY = "initial-standby"
    STANDBY = "standby"
    ACTIVE = "active"
    STOPPING = "stopping"


class TimeoutPolicy(StrEnum):
    """What a primary does when nobody connected during initial standby (`on_initial_standby_timeout`)."""

    ACTIVATE = "activate"
    WAIT = "wait"
    WAIT_IF_OUTDATED = "wait-if-outdated"


class WorkloadState(StrEnum):
    """What is known of the protected application."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


class TreeState(StrEnum):
    """How a replicated tree stands to the same tree on the other node (`trees` in the status)."""

    UNKNOWN = "unknown"  # not compared since the agent started
    WAITING = "waiting"  # for the link, or for its turn
    COMPARING = "comparing"
    COPYING = "copying"
    IN_SYNC = "in-sync"
    BEHIND = "behind"  # whole, and on its way to the newest state
    INCOMPLETE = "incomplete"  # a first copy or an overwrite is not finished: the workload must not use it
    FAILED = "failed"


class SyncState(StrEnum):
    """How far synchronisation as a whole is (`sync` in the status)."""

    NONE = "none"  # no trees, or no pair
    WAITING = "waiting"
    COMPARING = "comparing"
    COPYING = "copying"
    IN_SYNC = "in-sync"
    FAILED = "failed"


class SyncDirection(StrEnum):
    """Which way the contents go, seen from this node."""

    TO_PEER = "to-peer"
    FROM_PEER = "from-peer"


NANOSECONDS_PER_MILLISECOND = 1_000_000
