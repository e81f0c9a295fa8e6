"""Reads a Windows security descriptor in its text form (SDDL): who, apart from the owner and the system, may read.

Pure: it gets text and returns text, so that it is proved on every platform. Asking Windows for the text, and for the
names behind the identifiers, is the part of `security_windows`.
Source: Microsoft, "Security Descriptor String Format" and "ACE Strings".
"""

from __future__ import annotations

import re

# Whoever is one of these may read a private file: they could take the right to it at any time, or are the owner.
TRUSTED_TRUSTEES = frozenset(
    {
        "SY",  # the system
        "BA",  # administrators
        "CO",  # creator owner, a placeholder
        "OW",  # owner rights
        "S-1-5-18",
        "S-1-5-32-544",
        "S-1-3-0",
        "S-1-3-4",
        "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",  # TrustedInstaller
    }
)
EVERYONE = "WD"

_READ_DATA = 0x1
_WRITE_DAC = 0x40000
_WRITE_OWNER = 0x80000
_GENERIC_ALL = 0x10000000
_GENERIC_READ = 0x80000000
# Who may change the list or the owner can give the right to read to himself.
_LETS_READ = _READ_DATA | _WRITE_DAC | _WRITE_OWNER | _GENERIC_ALL | _GENERIC_READ

_RIGHTS = {
    "GA": _GENERIC_ALL,
    "GR": _GENERIC_READ,
    "GW": 0x40000000,
    "GX": 0x20000000,
    "RC": 0x20000,
    "SD": 0x10000,
    "WD": _WRITE_DAC,
    "WO": _WRITE_OWNER,
    "CC": 0x1,
    "DC": 0x2,
    "LC": 0x4,
    "SW": 0x8,
    "RP": 0x10,
    "WP": 0x20,
    "DT": 0x40,
    "LO": 0x80,
    "CR": 0x100,
    "FA": 0x1F01FF,
    "FR": 0x120089,
    "FW": 0x120116,
    "FX": 0x1200A0,
    "KA": 0xF003F,
    "KR": 0x20019,
    "KW": 0x20006,
    "KX": 0x20019,
}
_ALLOWING_TYPES = frozenset({"A", "XA", "OA"})

_OWNER = re.compile(r"O:(S-[0-9-]+|[A-Z]{2})")
_LIST = re.compile(r"D:([A-Z_]*)((?:\([^()]*(?:\([^()]*\)[^()]*)*\))*)")
_ENTRY = re.compile(r"\(([^()]*)")


def foreign_readers(sddl: str, own_trustees: frozenset[str]) -> list[str]:
    """Returns the trustees (SID or two-letter alias) that may read, apart from owner, system and `own_trustees`.

    A descriptor without a list, or one that cannot be understood, lets everyone read: nothing is trusted on a guess.
    """
    found = _LIST.search(sddl)
    if found is None or "NO_ACCESS_CONTROL" in found.group(1):
        return [EVERYONE]
    owner = _OWNER.search(sddl)
    trusted = TRUSTED_TRUSTEES | own_trustees | ({owner.group(1)} if owner else set())
    readers: list[str] = []
    for entry in _ENTRY.findall(found.group(2)):
        fields = entry.split(";")
        if len(fields) < 6:
            return [EVERYONE]
        kind, flags, rights, trustee = fields[0], fields[1], fields[2], fields[5]
        inherit_only = "IO" in re.findall("..", flags)
        if kind not in _ALLOWING_TYPES or inherit_only or trustee in trusted or trustee in readers:
            continue
        if _mask(rights) & _LETS_READ:
            readers.append(trustee)
    return readers


def _mask(rights: str) -> int:
    """Returns the access mask of an entry; rights that are not known count as all."""
    if re.fullmatch(r"0x[0-9a-fA-F]+|[0-9]+", rights):
        return int(rights, 0)
    mask = 0
    for alias in re.findall("..", rights):
        mask |= _RIGHTS.get(alias, _GENERIC_ALL)
    return mask
