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


NANOSECONDS_PER_MILLISECOND = 1_000_000
