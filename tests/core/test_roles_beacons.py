"""One-way loss: what a node does that hears the other's beacons without a link."""

from __future__ import annotations

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.record import Record
from agent.core.role_table import Phase
from agent.core.roles import Roles, RoleSettings
from agent.core.vocabulary import Mode, TimeoutPolicy

SECOND = 1_000_000_000
TAKEOVER = 5 * SECOND
UNHEARD = told.PeerHeard(active=True, hears=False)
HEARD = told.PeerHeard(active=True, hears=True)


def node(mode: Mode) -> Roles:
    settings = RoleSettings(mode, 10 * SECOND, TimeoutPolicy.ACTIVATE, TAKEOVER, TAKEOVER)
    record = Record(mode=mode.value, term_lane=int(mode is Mode.PRIMARY), pair_id=b"p" * 16)
    roles = Roles(settings, record, 0)
    roles.handle(told.Started(), 0)
    return roles


def active(mode: Mode) -> tuple[Roles, int]:
    roles = node(mode)
    now = roles.next_deadline()
    assert now is not None
    roles.handle(told.TimerFired(), now)
    assert roles.phase is Phase.ACTIVE
    return roles, now


def hear(roles: Roles, beacon: told.PeerHeard, start: int, seconds: int) -> list[do.Effect]:
    return [effect for second in range(seconds) for effect in roles.handle(beacon, start + second * SECOND)]


def test_n2_active_primary_that_is_not_heard_by_an_active_backup_yields() -> None:
    primary, now = active(Mode.PRIMARY)
    assert do.StopWorkload() in hear(primary, UNHEARD, now, 6)
    assert primary.phase is Phase.STEPPING_DOWN


def test_one_stray_beacon_of_an_active_peer_changes_nothing() -> None:
    primary, now = active(Mode.PRIMARY)
    hear(primary, UNHEARD, now, 4)
    hear(primary, HEARD, now + 4 * SECOND, 1)
    hear(primary, UNHEARD, now + 5 * SECOND, 4)
    assert primary.phase is Phase.ACTIVE


def test_primary_that_is_heard_stays_and_the_backup_yields() -> None:
    primary, now = active(Mode.PRIMARY)
    hear(primary, HEARD, now, 20)
    assert primary.phase is Phase.ACTIVE
    backup, now = active(Mode.BACKUP)
    assert do.StopWorkload() in hear(backup, HEARD, now, 6)


def test_n3_backup_does_not_take_over_from_an_active_primary_that_it_hears() -> None:
    backup = node(Mode.BACKUP)
    hear(backup, UNHEARD, 0, 60)
    backup.handle(told.TimerFired(), 60 * SECOND)
    assert backup.phase is Phase.STANDBY


def test_backup_takes_over_when_the_beacons_end_too() -> None:
    backup = node(Mode.BACKUP)
    hear(backup, UNHEARD, 0, 60)
    backup.handle(told.TimerFired(), 59 * SECOND + TAKEOVER)
    assert backup.phase is Phase.ACTIVE


def test_beacon_of_a_standby_peer_holds_nobody_back() -> None:
    backup = node(Mode.BACKUP)
    hear(backup, told.PeerHeard(active=False, hears=False), 0, 4)
    backup.handle(told.TimerFired(), TAKEOVER)
    assert backup.phase is Phase.ACTIVE
