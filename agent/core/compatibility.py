"""Whether two nodes can be a pair: what each said of itself in its hello, compared (PROTOCOL.md, section 5).

Both sides compute the same verdict from the same two hellos, and each names both values.
"""

from __future__ import annotations

from enum import StrEnum

from agent.core.messages import Hello
from agent.core.vocabulary import Mode

PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1


class CloseCode(StrEnum):
    """Why a connection is ended; the wire carries the value."""

    PROTOCOL = "protocol"
    VERSION = "version"
    PRE_SHARED_KEY = "pre-shared-key"
    MODE = "mode"
    TIMERS = "timers"
    WRONG_PAIR = "wrong-pair"
    DUPLICATE = "duplicate"
    REPLACED = "replaced"
    SILENCE = "silence"
    BUSY = "busy"


def common_version(own: tuple[int, int], peer: tuple[int, int]) -> int | None:
    """Returns the highest version in both ranges (minimum, maximum), or None."""
    highest = min(own[1], peer[1])
    return highest if highest >= max(own[0], peer[0]) else None


def contradiction(own: Hello, peer: Hello) -> tuple[CloseCode, str] | None:
    """Returns why the two cannot be a pair, with both values, or None."""
    if {own.mode, peer.mode} != {Mode.PRIMARY, Mode.BACKUP}:
        return (
            CloseCode.MODE,
            f'a pair is one primary and one backup, but {own.name!r} has mode = "{own.mode.value}" and {peer.name!r} '
            f'has mode = "{peer.mode.value}"; change it in one agent.toml',
        )
    if own.pair_id and peer.pair_id and own.pair_id != peer.pair_id:
        return (
            CloseCode.WRONG_PAIR,
            f"{own.name!r} belongs to pair {own.pair_id.hex()[:8]} and {peer.name!r} to pair {peer.pair_id.hex()[:8]}; "
            "if they shall be a pair from now on, run `pair-agent trust --forget-pair` on the one whose data may go",
        )
    primary, backup = (own, peer) if own.mode is Mode.PRIMARY else (peer, own)
    for waiting, beating in ((primary, backup), (backup, primary)):
        patience_ms = min(waiting.timeout_ms, waiting.takeover_ms)
        if patience_ms <= beating.interval_ms:
            return (
                CloseCode.TIMERS,
                f"{waiting.name!r} waits {patience_ms} ms for a heartbeat that {beating.name!r} sends every "
                f"{beating.interval_ms} ms; raise heartbeat.timeout (on a backup connection_timeout too) on "
                f"{waiting.name!r} or lower heartbeat.interval on {beating.name!r}",
            )
    return None


def pair_id_of(own: Hello, peer: Hello, digest: bytes) -> bytes:
    """Returns the identity of the pair: the one that either side already has, else the first half of `digest`.

    `digest` is SHA-256 over both pair nonces, the primary's first, so that both sides make the same.
    """
    return own.pair_id or peer.pair_id or digest[:16]
