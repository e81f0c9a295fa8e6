"""What the routes answer and do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from agent.admin import api as admin_api
from agent.admin.api import EVENT_READERS_MAX, open_admin_listener
from agent.admin.codes import EventCode
from agent.admin.control import Action, Answer
from agent.admin.events import EventLog
from agent.config.model import Admin
from agent.core.errors import PairAgentError, WorkloadError
from tests.admin.fake_control import TOKEN, read_until, sample_status, serving


@pytest.mark.parametrize(
    ("role", "active", "standby"),
    [("active", 200, 503), ("standby", 503, 200), ("initial-standby", 503, 503), ("stopping", 503, 503)],
)
def test_a_load_balancer_sees_the_role_as_a_status_code_and_one_word(
    tmp_path: Path, role: str, active: int, standby: int
) -> None:
    async def main() -> None:
        async with serving(tmp_path, status_now=sample_status(role=role)) as api:
            answers = [await api.ask("GET", path) for path in ("/active", "/standby")]
            assert [answer.status for answer in answers] == [active, standby]
            assert all(answer.body == f"{role}\n".encode() for answer in answers)

    trio.run(main)


def test_a_probe_without_host_header_is_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            assert (await api.exchange(b"GET /active HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    trio.run(main)


def test_liveness_does_not_depend_on_the_state_of_the_pair(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, fault=RuntimeError("no status")) as api:
            assert (await api.ask("GET", "/liveness")).status == 200

    trio.run(main)


@pytest.mark.parametrize(("ready", "probe_status"), [(True, 200), (False, 503)])
def test_readiness_is_the_verdict_and_the_probe_says_it_by_its_status(
    tmp_path: Path, ready: bool, probe_status: int
) -> None:
    verdict = {"ready": ready, "reasons": ["A sentence."]}

    async def main() -> None:
        async with serving(tmp_path, status_now=sample_status(readiness=verdict)) as api:
            probe = await api.ask("GET", "/readiness")
            assert (probe.status, probe.json()) == (probe_status, verdict)
            for_programs = await api.ask("GET", "/v1/readiness")
            assert (for_programs.status, for_programs.json()) == (200, verdict)

    trio.run(main)


def test_status_is_given_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            for path in ("/status", "/v1/status"):
                answer = await api.ask("GET", path)
                assert (answer.status, answer.json()) == (200, sample_status())
                assert answer.headers["cache-control"] == "no-store"

    trio.run(main)


@pytest.mark.parametrize(
    ("path", "body", "acted"),
    [
        ("/v1/failover", None, (Action.FAILOVER, {})),
        ("/v1/failback", b"{}", (Action.FAILBACK, {})),
        ("/v1/maintenance", b'{"on": true}', (Action.MAINTENANCE, {"on": True})),
        ("/v1/maintenance", b'{"on": false}', (Action.MAINTENANCE, {"on": False})),
        ("/v1/test/heartbeat", None, (Action.TEST_HEARTBEAT, {"count": 5})),
        ("/v1/test/heartbeat", b'{"count": 100}', (Action.TEST_HEARTBEAT, {"count": 100})),
    ],
)
def test_an_action_reaches_the_node_and_its_answer_comes_back(
    tmp_path: Path, path: str, body: bytes | None, acted: tuple[Action, dict[str, object]]
) -> None:
    async def main() -> None:
        async with serving(tmp_path, answer=Answer(True, "Done.", {"took_ms": 3})) as api:
            answer = await api.ask("POST", path, token=TOKEN, body=body)
            assert (answer.status, answer.json()) == (200, {"sentence": "Done.", "details": {"took_ms": 3}})
            assert api.control.acted == [acted]

    trio.run(main)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/maintenance", None),
        ("/v1/maintenance", b'{"on": 1}'),
        ("/v1/maintenance", b'{"on": "yes"}'),
        ("/v1/maintenance", b'{"on": true, "off": 1}'),
        ("/v1/maintenance", b"[true]"),
        ("/v1/maintenance", b"{"),
        ("/v1/maintenance", b"\xff"),
        ("/v1/maintenance", b"[" * 60_000),
        ("/v1/failover", b'{"force": true}'),
        ("/v1/test/heartbeat", b'{"count": 0}'),
        ("/v1/test/heartbeat", b'{"count": 101}'),
        ("/v1/test/heartbeat", b'{"count": true}'),
        ("/v1/test/heartbeat", b'{"count": 1e1}'),
    ],
)
def test_arguments_that_are_not_allowed_are_named_and_nothing_is_done(
    tmp_path: Path, path: str, body: bytes | None
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask("POST", path, token=TOKEN, body=body)
            assert answer.status == 400
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"].endswith(".")
            assert api.control.acted == []

    trio.run(main)


def test_a_refused_action_is_a_conflict_with_the_nodes_sentence(tmp_path: Path) -> None:
    refusal = Answer(False, "The backup is not eligible: its first copy is not finished.", {"waits_ms": 5})

    async def main() -> None:
        async with serving(tmp_path, answer=refusal) as api:
            answer = await api.ask("POST", "/v1/failover", token=TOKEN)
            assert answer.status == 409
            assert answer.json() == {
                "type": "about:blank",
                "title": "Conflict",
                "status": 409,
                "detail": refusal.sentence,
                "details": {"waits_ms": 5},
            }

    trio.run(main)


def test_an_error_meant_for_the_operator_is_passed_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, fault=WorkloadError("It did not stop in 10 s.")) as api:
            answer = await api.ask("POST", "/v1/failover", token=TOKEN)
            assert (answer.status, answer.json()["detail"]) == (503, "It did not stop in 10 s.")

    trio.run(main)


def test_a_fault_of_ours_shows_no_inside_and_the_api_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path, fault=RuntimeError("secret detail")) as api:
            answer = await api.ask("GET", "/v1/status")
            assert answer.status == 500
            assert b"secret detail" not in answer.body
            assert b"Traceback" not in answer.body
            assert (await api.ask("GET", "/liveness")).status == 200

    trio.run(main)
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/status/", "/nothing", "/../etc/passwd", "/v1/%2e%2e/status", "//evil.example/status"],
)
def test_an_unknown_path_is_not_found_and_never_redirected(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask("GET", path)
            assert (answer.status, answer.json()["status"]) == (404, 404)
            assert answer.headers["x-content-type-options"] == "nosniff"

    trio.run(main)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/status"), ("GET", "/v1/failover"), ("PUT", "/v1/maintenance"), ("OPTIONS", "/status")],
)
def test_a_wrong_method_is_refused(tmp_path: Path, method: str, path: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask(method, path, token=TOKEN)
            assert answer.status == 405
            assert answer.headers["allow"]
            assert api.control.acted == []

    trio.run(main)


def _fill(log: EventLog, count: int) -> None:
    for number in range(count):
        log.append(EventCode.LINK_UP, f"Event {number + 1}.")


@pytest.mark.parametrize(
    ("query", "sequences"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("?limit=2", [4, 5]),
        ("?after=0", [1, 2, 3, 4, 5]),
        ("?after=0&limit=2", [1, 2]),
        ("?after=3", [4, 5]),
        ("?after=5", []),
        ("?after=99", []),
    ],
)
def test_events_are_the_newest_or_those_after_a_number(tmp_path: Path, query: str, sequences: list[int]) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            _fill(api.control.log, 5)
            answer = await api.ask("GET", f"/v1/events{query}")
            assert [event["sequence"] for event in answer.json()] == sequences

    trio.run(main)


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=x",
        "after=",
        "limit=0",
        "limit=1001",
        "after=1&wait_ms=30001",
        "after=" + "9" * 5000,
        "limit=²",
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, query: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask("GET", f"/v1/events?{query.replace('²', '%C2%B2')}")
            assert answer.status == 400
            assert len(answer.body) < 500

    trio.run(main)


@pytest.mark.parametrize("after", [2, 7], ids=["the newest", "a number never given"])
def test_waiting_for_events_ends_with_the_next_one(tmp_path: Path, after: int) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api, trio.open_nursery() as nursery:
            log = api.control.log
            _fill(log, 2)

            async def append_when_somebody_waits() -> None:
                await log.waiting.wait()
                log.append(EventCode.LINK_DOWN, "The link is down.")

            nursery.start_soon(append_when_somebody_waits)
            answer = await api.ask("GET", f"/v1/events?after={after}&wait_ms=30000")
            assert [event["sequence"] for event in answer.json()] == [3]

    trio.run(main)


def test_waiting_for_events_ends_with_an_empty_list_when_nothing_happens(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            assert (await api.ask("GET", "/v1/events?after=0&wait_ms=1")).json() == []

    trio.run(main)


def test_a_reader_that_hangs_up_while_waiting_frees_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
                await stream.send_all(b"GET /v1/events?after=0&wait_ms=30000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await api.control.log.waiting.wait()
            with trio.fail_after(5):
                await api.control.log.released.wait()

    trio.run(main)


def test_readers_that_wait_are_bounded_and_their_places_come_back(tmp_path: Path) -> None:
    poll = b"GET /v1/events?after=0&wait_ms=30000 HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def main() -> None:
        async with serving(tmp_path) as api:
            readers = []
            for _ in range(EVENT_READERS_MAX):
                readers.append(await trio.open_tcp_stream("127.0.0.1", api.port))
                await readers[-1].send_all(poll)
            await trio.testing.wait_all_tasks_blocked(0.05)
            refused = await api.ask("GET", "/v1/events?after=0&wait_ms=30000")
            assert refused.status == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert int(refused.headers["retry-after"]) > 0
            assert str(EVENT_READERS_MAX) in refused.json()["detail"]
            assert (await api.ask("GET", "/v1/events?after=0")).json() == []
            api.control.log.append(EventCode.LINK_DOWN, "The link is down.")
            for reader in readers:
                await read_until(reader, b"The link is down.")
                await reader.aclose()
            assert (await api.ask("GET", "/v1/events?after=1&wait_ms=1")).json() == []

    trio.run(main)


def test_who_needs_not_wait_for_events_is_answered_although_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_api, "EVENT_READERS_MAX", 0)

    async def main() -> None:
        async with serving(tmp_path) as api:
            _fill(api.control.log, 2)
            answer = await api.ask("GET", "/v1/events?after=1&wait_ms=30000")
            assert [event["sequence"] for event in answer.json()] == [2]

    trio.run(main)


def test_a_taken_port_is_a_sentence_before_anything_starts() -> None:
    admin = Admin(port=0)
    (first, *_) = open_admin_listener(admin)
    with first, pytest.raises(PairAgentError, match=r"^\[admin\]: port \d+ is already in use"):
        open_admin_listener(Admin(port=first.getsockname()[1]))


def test_an_answer_never_holds_the_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            for token, path in ((TOKEN, "/v1/failover"), (TOKEN[:-1], "/v1/failover"), (None, "/v1/failover")):
                answer = await api.ask("POST", path, token=token)
                assert TOKEN not in json.dumps([answer.body.decode(), answer.headers])

    trio.run(main)
