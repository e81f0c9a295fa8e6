"""One node's role machine on a stage: told facts at given seconds, its answers shown as short lines."""

from __future__ import annotations

from dataclasses import replace

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.messages import Hello, Invite, Refusal, Release, Report, Request
from agent.core.record import Record
from agent.core.role_table import Phase
from agent.core.roles import Roles, RoleSettings
from agent.core.vocabulary import Mode, Role, TimeoutPolicy
from tests.core import samples

SECOND = 1_000_000_000
PAIR_ID = b"i" * 16
TAKEOVER_S = 5
INITIAL_STANDBY_S = 10

PAIRED = Record(pair_id=PAIR_ID, peer_name="line-4", peer_takeover_ms=5000)
PRIMARY_RECORD = replace(PAIRED, mode="primary", term_lane=1)
BACKUP_RECORD = replace(PAIRED, mode="backup", term_lane=0)


class Scene:
    """Tells one node facts and keeps what it does."""

    def __init__(
        self,
        mode: Mode,
        record: Record | None = None,
        policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE,
        *,
        force: bool = False,
        trees: bool = False,
    ) -> None:
        self.now_s = 0.0
        self.order = 0  # the number of the last CatchUp or SendFinalChanges
        start = {Mode.PRIMARY: PRIMARY_RECORD, Mode.BACKUP: BACKUP_RECORD, Mode.STAND_ALONE: Record()}[mode]
        settings = RoleSettings(
            mode,
            INITIAL_STANDBY_S * SECOND,
            policy,
            TAKEOVER_S * SECOND,
            TAKEOVER_S * SECOND,
            force_activate=force,
            trees=trees,
        )
        self.roles = Roles(settings, start if record is None else record, 0)
        self.other = samples.BACKUP if mode is Mode.PRIMARY else samples.PRIMARY
        self.done: list[do.Effect] = []

    @property
    def phase(self) -> Phase:
        return self.roles.phase

    def tell(self, *facts: told.Input) -> list[str]:
        """Tells facts now and returns what the last one brought about, in short."""
        for fact in facts:
            self.done = self.roles.handle(fact, round(self.now_s * SECOND))
            for effect in self.done:
                if isinstance(effect, do.CatchUp | do.SendFinalChanges):
                    self.order = effect.number
        return self.lines()

    def lines(self) -> list[str]:
        """Returns the effects of the last fact, in their order, without reports and events."""
        return [line for effect in self.done if (line := short(effect))]

    def started(self) -> Scene:
        self.tell(told.Started())
        return self

    def after(self, seconds: float) -> list[str]:
        """Lets time pass, firing the timers that fall due, and returns what the last of them brought about."""
        end_s = self.now_s + seconds
        self.done = []
        while (deadline_ns := self.roles.next_deadline()) is not None and deadline_ns <= end_s * SECOND:
            self.now_s = max(self.now_s, deadline_ns / SECOND)
            self.tell(told.TimerFired())
        self.now_s = end_s
        return self.lines()

    # -- answers to the last order

    def caught_up(self) -> list[str]:
        return self.tell(told.CaughtUp(self.order))

    def catch_up_failed(self, reason: str = "the disk is full") -> list[str]:
        return self.tell(told.CatchUpFailed(self.order, reason))

    def sent(self, undelivered: str = "") -> list[str]:
        return self.tell(told.FinalChangesSent(self.order, undelivered))

    def stopped_and_sent(self) -> list[str]:
        """The workload ended, and what it left is on the other node."""
        self.tell(told.WorkloadEnded())
        return self.sent()

    # -- the other node

    def linked(self, role: Role = Role.STANDBY, active_term: int = 0, **more: object) -> list[str]:
        """Opens the link to a peer that reports this."""
        return self.tell(told.LinkOpened(self._hello(role, active_term, **more), PAIR_ID))

    def reported(self, role: Role, active_term: int = 0, **more: object) -> list[str]:
        return self.tell(told.PeerReported(self._hello(role, active_term, **more).report))

    def asked(self, message: Invite | Request | Release | Refusal) -> list[str]:
        return self.tell(told.PeerAsked(message))

    def lost(self, loss: told.LinkLoss, *, heard_s_ago: float = 0) -> list[str]:
        heard_ns = round((self.now_s - heard_s_ago) * SECOND)
        return self.tell(told.LinkLost(loss, heard_ns, loss.value))

    def _hello(self, role: Role, active_term: int, **more: object) -> Hello:
        report: Report = replace(samples.REPORT, role=role, term=active_term, active_term=active_term, **more)  # type: ignore[arg-type]  # names and types are those of Report
        return replace(self.other, report=report)

    # -- what was said to operators

    @property
    def answer(self) -> do.Answer:
        (answer,) = [effect for effect in self.done if isinstance(effect, do.Answer)]
        return answer

    @property
    def announced(self) -> list[str]:
        return [effect.code for effect in self.done if isinstance(effect, do.Announce)]


def short(effect: do.Effect) -> str:
    """Returns an effect as one short line; empty for what is only told to people."""
    match effect:
        case do.Store():
            return "store"
        case do.StartWorkload():
            return f"start in term {effect.term}"
        case do.StopWorkload():
            return "stop"
        case do.Tell():
            return f"tell {type(effect.message).__name__.lower()}"
        case do.CatchUp():
            return "catch up"
        case do.SendFinalChanges():
            return "send final changes"
        case do.DropLink():
            return "drop link"
        case do.SayGoodbye():
            return "say goodbye"
        case do.Exit():
            return "exit"
    return ""


def active_primary() -> Scene:
    """A primary that is active in term 1, linked with a backup on standby."""
    scene = Scene(Mode.PRIMARY).started()
    scene.linked()
    scene.reported(Role.STANDBY)
    assert scene.phase is Phase.ACTIVE
    return scene


def standby_backup() -> Scene:
    """A backup on standby, linked with a primary that is active in term 1."""
    scene = Scene(Mode.BACKUP).started()
    scene.linked(Role.ACTIVE, 1)
    assert scene.phase is Phase.STANDBY
    return scene


def active_backup() -> Scene:
    """A backup that took over in term 2, without a link."""
    scene = standby_backup()
    scene.lost(told.LinkLoss.CLOSED)
    scene.tell(told.PeerProvenGone())
    assert scene.phase is Phase.ACTIVE
    return scene


def standby_primary() -> Scene:
    """A primary on standby beside a backup that keeps the role in term 2 until failback."""
    scene = Scene(Mode.PRIMARY, replace(PRIMARY_RECORD, term=2, active_term=1, released=True)).started()
    scene.linked(Role.ACTIVE, 2, hold=True)
    scene.reported(Role.ACTIVE, 2, hold=True)
    assert scene.phase is Phase.STANDBY
    return scene
