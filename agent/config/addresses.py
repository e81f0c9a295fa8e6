"""The kinds of value that name a place on a network: interfaces, hosts, ports with a host, URLs.

Only the writing is judged. Whether an address belongs to this node, or a name resolves, is asked elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.config.values import TEXT_LENGTH_MAX, NotAllowedError, ValueKind

ALL_INTERFACES = "All interfaces"


@dataclass(frozen=True)
class Interface(ValueKind):
    """An address to listen on: of this node, or one of the words for several."""

    @property
    def allowed(self) -> str:
        return f'an IPv4 or IPv6 address of this node (`pair-agent interfaces`), "localhost" or "{ALL_INTERFACES}"'

    def accept(self, value: object) -> str:
        if not isinstance(value, str):
            raise NotAllowedError
        if value.lower() == ALL_INTERFACES.lower():
            return ALL_INTERFACES
        if value.lower() == "localhost":
            return "localhost"
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            if value.count(":") == 1:
                raise NotAllowedError("the port has its own key beside it") from None
            raise NotAllowedError from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# Underscores are not host names by RFC 1123, but Windows networks have them.
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def is_host(text: str) -> bool:
    """Tells whether the text is a host name or an IP address."""
    if _is_address(text):
        return True
    labels = text.rstrip(".").split(".")
    if all(label.isdigit() for label in labels):
        return False
    return len(text) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)


@dataclass(frozen=True)
class Host(ValueKind):
    """A host name or IP address, without a port."""

    @property
    def allowed(self) -> str:
        return "a host name or an IP address, without a port"

    def accept(self, value: object) -> str:
        if not isinstance(value, str):
            raise NotAllowedError
        if "://" in value:
            raise NotAllowedError("it is a URL")
        if not is_host(value):
            if ":" in value and is_host(value.rpartition(":")[0].strip("[]")):
                raise NotAllowedError("the port has its own key beside it")
            raise NotAllowedError
        return value


def split_host_port(text: str) -> tuple[str, int] | None:
    """Splits "host:port" or "[::1]:port"; None if it is neither."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None or not 1 <= int(match[3]) <= 65535:
        return None
    host = match[1] or match[2]
    if match[1] and not (_is_address(host) and ":" in host):
        return None
    return (host, int(match[3])) if is_host(host) else None


@dataclass(frozen=True)
class HostPort(ValueKind):
    """A host and a port in one text."""

    @property
    def allowed(self) -> str:
        return 'host:port, such as "127.0.0.1:1883" or "[::1]:1883"'

    def accept(self, value: object) -> str:
        if not isinstance(value, str) or split_host_port(value) is None:
            raise NotAllowedError
        return value


@dataclass(frozen=True)
class Url(ValueKind):
    """A URL of http or https."""

    @property
    def allowed(self) -> str:
        return 'a URL that begins with "http://" or "https://"'

    def accept(self, value: object) -> str:
        if not isinstance(value, str) or not value.isprintable() or " " in value or len(value) > TEXT_LENGTH_MAX:
            raise NotAllowedError
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
        except ValueError:
            raise NotAllowedError("its host or port cannot be read") from None
        if not known:
            raise NotAllowedError
        return value
