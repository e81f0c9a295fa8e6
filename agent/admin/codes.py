"""The events that an agent reports, one code each: what monitoring matches on, so a code never changes its meaning.

Knows the words only; who appends which event is decided where it happens.
"""

from __future__ import annotations

from enum import StrEnum


class EventCode(StrEnum):
    """A code as written to the event log, with `meaning` as one sentence and `warning` for what needs a look."""

    meaning: str
    warning: bool

    def __new__(cls, value: str, meaning: str = "", warning: bool = False) -> EventCode:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.warning = warning
        return member

    AGENT_STARTED = "agent-started", "The agent started."
    AGENT_STOPPED = "agent-stopped", "The agent stopped as planned."
    ROLE_CHANGED = "role-changed", "This node changed its role, for the reason and with the term given."
    LINK_UP = "link-up", "The link to the other node is up."
    LINK_DOWN = "link-down", "The link to the other node is down.", True
    PEER_REFUSED = "peer-refused", "Somebody was refused on the link: a stranger, or a peer that contradicts us.", True
    BOTH_ACTIVE = "both-active", "Both nodes were active when the link came up; the backup steps down.", True
    ACTIVATED_WITHOUT_RESYNC = (
        "activated-without-resync",
        "The primary became active without having asked the backup for newer state.",
        True,
    )
    WORKLOAD_STARTED = "workload-started", "The workload was started."
    WORKLOAD_STOPPED = "workload-stopped", "The workload was stopped."
    WORKLOAD_FAILED = (
        "workload-failed",
        "The workload ended by itself, could not start or failed its health check.",
        True,
    )
    WORKLOAD_RESTARTED = "workload-restarted", "The workload failed and was started again on this node.", True
    WORKLOAD_FENCED = "workload-fenced", "The workload was killed so that it cannot run on both nodes.", True
    AGENT_WAS_FROZEN = "agent-was-frozen", "The agent did not run for longer than the other node waits.", True
    TAKEOVER_DAMPED = "takeover-damped", "A role change is held back because there were too many of late.", True
    MAINTENANCE_CHANGED = "maintenance-changed", "Maintenance was switched on or off."
    CLOCK_DIFFERENCE = "clock-difference", "The wall clocks of the two nodes differ too much to compare times.", True
    VERSION_DIFFERENCE = "version-difference", "The two nodes run different versions of agent or workload.", True
    STATE_DAMAGED = "state-damaged", "A file of the state directory is damaged or from a newer version.", True
    ENVIRONMENT_OVERRIDE = "environment-override", "An environment variable overrides a key of agent.toml."
    CERTIFICATE_EXPIRING = "certificate-expiring", "A certificate has expired or soon will.", True
    NOT_ELIGIBLE = "not-eligible", "This node may not become active, for the reason given.", True
    HANDOVER = "handover", "The active role is being moved to the other node as planned."
    HANDOVER_REFUSED = (
        "handover-refused",
        "A planned handover was refused or undone; the role stays where it was.",
        True,
    )
    FINAL_CHANGES_UNDELIVERED = (
        "final-changes-undelivered",
        "The last changes did not reach the other node before the agent stopped.",
        True,
    )
    SYNC_COMPLETE = "sync-complete", "The trees of both nodes are in sync."
    SYNC_FAILED = "sync-failed", "Synchronisation failed and is tried again.", True
    OVERWRITE_BEGUN = "overwrite-begun", "The other node's trees begin to replace this node's.", True
    OVERWRITE_DONE = "overwrite-done", "The other node's trees replaced this node's; the archive holds what was here."
    CONFLICT = "conflict", "Both nodes changed the same path; one version is in its place, the other archived.", True
    ARCHIVED = "archived", "Files that were to be replaced or removed went to the archive."
    ARCHIVE_EXPIRING = "archive-expiring", "The archive will soon remove its oldest items.", True
    NAME_REFUSED = "name-refused", "An entry of a tree cannot be replicated, for the reason given.", True
    TREE_TROUBLE = "tree-trouble", "A tree cannot be read, written or watched as it should be.", True
    DISK_FULL = "disk-full", "There is not enough free space to synchronise.", True
    LOCAL_EDIT_REPLACED = (
        "local-edit-replaced",
        "A file that was edited on the standby node was replaced; the archive holds the edit.",
        True,
    )
    TREES_INCOMPLETE = "trees-incomplete", "This node's trees are not whole, so its workload must not start.", True


def event_code(word: str) -> EventCode:
    """Returns the code written as `word`; KeyError if there is none."""
    return _BY_WORD[word]


_BY_WORD = {code.value: code for code in EventCode}
