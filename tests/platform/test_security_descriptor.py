"""Who may read, told from the text form of a Windows security descriptor; proved on every platform."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.security_descriptor import EVERYONE, foreign_readers

OWN = frozenset({"S-1-5-21-1-2-3-1001"})


@pytest.mark.parametrize(
    ("sddl", "readers"),
    [
        ("O:S-1-5-21-1-2-3-1001D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;S-1-5-21-1-2-3-1001)", []),
        ("O:BAG:BAD:PAI(A;;FA;;;SY)(A;;FA;;;BA)", []),
        ("O:S-1-5-21-9D:(A;;FA;;;S-1-5-21-9)", []),  # the owner is nobody else, whoever asks
        ("O:BAD:(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)", ["BU"]),
        ("O:BAD:(A;ID;FR;;;WD)", ["WD"]),
        ("O:BAD:(A;;GR;;;AU)(A;;GA;;;IU)", ["AU", "IU"]),
        ("O:BAD:(A;;CCDCLC;;;S-1-5-21-7)", ["S-1-5-21-7"]),
        ("O:BAD:(A;;WD;;;BU)", ["BU"]),  # may give himself the right
        ("O:BAD:(A;;WO;;;BU)", ["BU"]),
        ("O:BAD:(A;;FW;;;BU)", []),  # writes, but cannot read
        ("O:BAD:(A;;0x100080;;;BU)", []),
        ("O:BAD:(A;OICIIO;GA;;;BU)", []),  # for what is made in the folder, not for the folder
        ("O:BAD:(D;;FA;;;WD)(A;;FA;;;SY)", []),
        ("O:BAD:(A;;FR;;;BU)(A;;FR;;;BU)", ["BU"]),
        ('O:BAD:(XA;;FR;;;WD;(@User.Title=="PM"))', ["WD"]),
        ("O:BAD:P", []),  # an empty list: nobody
        ("O:BAD:NO_ACCESS_CONTROL", [EVERYONE]),
        ("O:BA", [EVERYONE]),  # no list at all
        ("", [EVERYONE]),
        ("O:BAD:(A;;FR)", [EVERYONE]),  # not understood
        ("O:BAD:(A;;ZZ;;;BU)", ["BU"]),  # an unknown right counts
    ],
)
def test_others_who_may_read_are_named(sddl: str, readers: list[str]) -> None:
    assert foreign_readers(sddl, OWN) == readers


@given(st.text(alphabet="OD:()A;FRGSYBUWP0x12-", max_size=60))
def test_garbage_is_never_an_exception(sddl: str) -> None:
    assert isinstance(foreign_readers(sddl, OWN), list)
