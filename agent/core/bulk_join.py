"""How the two ends of a bulk connection show that they belong to the link (PROTOCOL.md, section 10).

The first message of both sides is Join. Knows nothing of the other messages, whose kinds begin at KIND_FIRST_FREE, nor
of TLS: both keys are arguments.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from agent.core.compatibility import CloseCode, common_version
from agent.core.errors import PeerError
from agent.core.messages import ENTRIES_MAX, INTEGER_MAX, PROOF_BYTES, TEXT_CHARACTERS_MAX

BULK_VERSION_MIN = 1
BULK_VERSION_MAX = 1
KIND_PART = 0
KIND_JOIN = 1
KIND_FIRST_FREE = 2
CODE_BINDING = "bulk-binding"
JOIN_BYTES_MAX = 4096

_LABEL = b"pair-agent-bulk/1 "


@dataclass(frozen=True)
class JoinKeys:
    """What a proof is made of: `link_key` exported from the link's TLS, `exporter` from this very connection's."""

    link_key: bytes = field(repr=False)
    exporter: bytes = field(repr=False)
    dialled: bool  # this side opened the connection

    def proof(self, *, by_dialler: bool) -> bytes:
        """Returns the 32 bytes that show knowledge of the link's key, on this connection and by this side."""
        side = b"dialler" if by_dialler else b"listener"
        return hmac.digest(self.link_key, _LABEL + side + b"\0" + self.exporter, "sha256")


def join_payload(keys: JoinKeys) -> bytes:
    """Returns this side's first message."""
    fields = {
        "version_min": BULK_VERSION_MIN,
        "version_max": BULK_VERSION_MAX,
        "proof": keys.proof(by_dialler=keys.dialled),
    }
    packed: bytes = msgpack.packb([KIND_JOIN, fields])
    return packed


def part_payload(error: PeerError) -> bytes:
    """Returns the message that tells the other end why this one leaves."""
    fields = {"code": error.code, "sentence": str(error)[:TEXT_CHARACTERS_MAX]}
    packed: bytes = msgpack.packb([KIND_PART, fields], unicode_errors="replace")
    return packed


def judge_join_untrusted(payload: bytes | memoryview, keys: JoinKeys) -> int:
    """Judges the other side's first message and returns the version that both speak from now on.

    Raises PeerError: code "bulk-binding" if its proof is not of this link, "version" if there is no common version, the
    other side's own code and sentence if it left, "protocol" for anything that is no Join.
    """
    kind, fields = _decoded_untrusted(payload)
    if kind == KIND_PART:
        raise PeerError(
            f"the other node ended the bulk connection: {_printable(fields.get('sentence'))}",
            code=_printable(fields.get("code")),
        )
    if kind != KIND_JOIN:
        raise PeerError("the other node sent something else before it joined the bulk connection")
    own, offered = (BULK_VERSION_MIN, BULK_VERSION_MAX), (fields.get("version_min"), fields.get("version_max"))
    proof = fields.get("proof")
    least, most = offered
    if (
        type(least) is not int
        or type(most) is not int
        or not 0 <= least <= INTEGER_MAX
        or not 0 <= most <= INTEGER_MAX
        or type(proof) is not bytes
        or len(proof) != PROOF_BYTES
    ):
        raise PeerError("the other node sent a Join with a missing or wrong field")
    common = common_version(own, (least, most))
    if common is None:
        raise PeerError(
            f"no common version of the bulk protocol: here {own[0]} to {own[1]}, there {least} to {most}; "
            "install the same pair-agent version on both nodes",
            code=CloseCode.VERSION.value,
        )
    if not hmac.compare_digest(keys.proof(by_dialler=not keys.dialled), proof):
        raise PeerError("this bulk connection does not belong to the present link", code=CODE_BINDING)
    return common


def _decoded_untrusted(payload: bytes | memoryview) -> tuple[int, Mapping[Any, Any]]:
    if len(payload) > JOIN_BYTES_MAX:
        raise PeerError(f"the other node sent a first message of {len(payload)} bytes; {JOIN_BYTES_MAX} are allowed")
    try:
        value = msgpack.unpackb(
            payload, raw=False, strict_map_key=True, max_array_len=ENTRIES_MAX, max_map_len=ENTRIES_MAX, max_ext_len=0
        )
    except Exception as error:  # msgpack raises a dozen unrelated types for hostile bytes, all of them the peer's fault
        raise PeerError(f"the other node sent a first message that is no msgpack: {type(error).__name__}") from error
    if not (isinstance(value, list) and len(value) == 2 and type(value[0]) is int and isinstance(value[1], dict)):
        raise PeerError("the other node sent a first message that is not [kind, fields]")
    return value[0], value[1]


def _printable(value: object) -> str:
    text = value if isinstance(value, str) else "?"
    return "".join(each if each.isprintable() else "?" for each in text[:TEXT_CHARACTERS_MAX])
