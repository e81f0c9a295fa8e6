"""The addresses that this node has right now."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class LocalAddress:
    """One address: the interface's name, the address as agent.toml takes it, "IPv4" or "IPv6", and whether it is up."""

    name: str
    address: str
    family: str
    up: bool


def node_addresses() -> list[LocalAddress]:
    """Returns every IPv4 and IPv6 address of this node, by interface, IPv4 first."""
    families = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
    states = psutil.net_if_stats()
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        up = name in states and states[name].isup
        for entry in addresses:
            family = families.get(socket.AddressFamily(entry.family)) if entry.family in families else None
            if family is not None:
                found.append(LocalAddress(name, entry.address, family, up))
    return sorted(found, key=lambda a: (a.name, a.family, a.address))
