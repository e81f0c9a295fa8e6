"""A seed's story: a configuration, a network, and faults and orders at random moments; then everything is mended."""

from __future__ import annotations

from agent.core import inputs as told
from agent.core.vocabulary import TimeoutPolicy
from tests.simulation.simulated_node import Node, NodeConfig
from tests.simulation.simulator import SimulatedPair
from tests.simulation.timeline import MILLISECOND, SECOND

TIMERS_MS = ((1000, 5000), (200, 1000), (100, 400), (1000, 1500), (500, 3000))  # interval, timeout
FAULTS_MAX = 8


def random_pair(seed: int) -> SimulatedPair:
    """Returns a pair whose configuration follows from the seed."""
    pair = SimulatedPair(seed)
    random = pair.timeline.random
    interval_ms, timeout_ms = random.choice(TIMERS_MS)
    connection_timeout_ms = random.choice((timeout_ms, timeout_ms * 2, max(interval_ms + 100, timeout_ms * 3 // 4)))
    reconnect_delay_ms = random.choice((100, 1000))
    config = NodeConfig(
        interval_ms=interval_ms,
        timeout_ms=timeout_ms,
        connection_timeout_ms=connection_timeout_ms,
        reconnect_delay_ms=reconnect_delay_ms,
        # A primary that does not wait for the next dial of an active backup has asked for two.
        initial_standby_ms=random.choice((1, 3)) * (connection_timeout_ms + reconnect_delay_ms) + timeout_ms,
        stop_timeout_ms=random.choice((20, 300, 3000)),
        policy=random.choice((TimeoutPolicy.ACTIVATE, TimeoutPolicy.ACTIVATE, *TimeoutPolicy)),
    )
    latency_ns = random.choice((0, 1, 10)) * MILLISECOND
    return SimulatedPair(seed, config, latency_ns=latency_ns, jitter_ns=latency_ns // 2 + MILLISECOND)


def run_story(seed: int) -> SimulatedPair:
    """Plays a seed to its end. Raises BrokenPromiseError."""
    pair = random_pair(seed)
    timeline = pair.timeline
    random, takeover_ns = timeline.random, pair.primary.takeover_ns
    for node in pair.nodes:
        timeline.after(random.randrange(takeover_ns), node.boot)
    if random.random() < 0.8:
        timeline.run_for(takeover_ns)
        pair.require_home()
    for _ in range(random.randint(1, FAULTS_MAX)):
        strike(pair)
        # Often at the same instant or shortly after, when what the last fault began is still going on.
        timeline.run_for(int(takeover_ns * random.choice((0.0, 0.002, 0.02, 0.3, 1.0, 1.2, 3.0)) * random.random()))
    pair.mend()
    pair.require_home()
    return pair


def strike(pair: SimulatedPair) -> None:
    """Lets one fault or order happen."""
    random = pair.timeline.random
    random.choice(FAULTS)(pair, random.choice(pair.nodes))


def _lasting_ns(pair: SimulatedPair) -> int:
    random = pair.timeline.random
    return int(pair.primary.takeover_ns * random.choice((0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 5.0)) * random.uniform(0.9, 1.1))


def _block(pair: SimulatedPair, node: Node) -> None:
    network, timeline = pair.network, pair.timeline
    senders = timeline.random.choice((frozenset({0, 1}), frozenset({node.number}), frozenset({node.number})))
    timeline.note("", f"packets are lost from {[pair.nodes[at].name for at in sorted(senders)]}")
    network.block(senders)

    def heal() -> None:
        if network.blocked == senders:
            pair.excuse()
            timeline.note("", "packets get through again")
            network.block(frozenset())

    timeline.after(_lasting_ns(pair), heal)


def _reset(pair: SimulatedPair, node: Node) -> None:
    for stream in list(pair.network.streams):
        pair.timeline.note("", f"connection {stream.number} is reset")
        stream.cut(both=pair.timeline.random.random() < 0.7)


def _forget(pair: SimulatedPair, node: Node) -> None:
    pair.timeline.note("", "a box on the way forgets all connections")
    pair.excuse()  # a partition for the link
    pair.network.forget_flows()


def _lossy(pair: SimulatedPair, node: Node) -> None:
    network = pair.network
    network.loss = pair.timeline.random.choice((0.05, 0.3))
    pair.timeline.note("", f"packets are lost now and then: {network.loss}")
    duration_ns = _lasting_ns(pair)
    pair.excuse(duration_ns)

    def mend() -> None:
        network.loss = 0.0
        pair.excuse()

    pair.timeline.after(duration_ns, mend)


def _chunks(pair: SimulatedPair, node: Node) -> None:
    pair.network.chunk_bytes_max = pair.timeline.random.choice((1, 7, 64 * 1024))


def _kill(pair: SimulatedPair, node: Node) -> None:
    random = pair.timeline.random
    if node.agent is not None and random.random() < 0.5:
        node.agent.crash_after = random.randrange(8)
    else:
        node.crash_now()
    pair.timeline.after(_lasting_ns(pair), node.start)


def _power(pair: SimulatedPair, node: Node) -> None:
    delay_ns = pair.timeline.random.choice((0, pair.timeline.random.randrange(8 * MILLISECOND)))
    pair.timeline.after(delay_ns, node.lose_power)
    pair.timeline.after(delay_ns + _lasting_ns(pair), node.boot)


def _freeze(pair: SimulatedPair, node: Node) -> None:
    node.freeze(whole=pair.timeline.random.random() < 0.5)
    pair.timeline.after(_lasting_ns(pair), node.thaw)


def _order(pair: SimulatedPair, node: Node) -> None:
    orders = (told.FailoverOrdered(), told.FailbackOrdered(), told.FailoverOrdered(), told.FailbackOrdered())
    node.order(pair.timeline.random.choice((*orders, told.MaintenanceOrdered(True), told.MaintenanceOrdered(False))))


def _stop(pair: SimulatedPair, node: Node) -> None:
    node.order(told.StopOrdered())
    for wait_ns in (_lasting_ns(pair), 10 * SECOND):
        pair.timeline.after(wait_ns, node.start)


def _workload_fails(pair: SimulatedPair, node: Node) -> None:
    if node.running is not None:
        node.order(told.WorkloadGaveUp("it ends again and again"))


def _wall_clock(pair: SimulatedPair, node: Node) -> None:
    node.clock.wall_offset_ms += pair.timeline.random.choice((-3_600_000, 3_600_000))


FAULTS = (
    _block,
    _block,
    _reset,
    _reset,
    _forget,
    _lossy,
    _chunks,
    _kill,
    _kill,
    _power,
    _power,
    _freeze,
    _freeze,
    _order,
    _order,
    _order,
    _stop,
    _workload_fails,
    _wall_clock,
)
