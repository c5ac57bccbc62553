"""A supplier behind a network that lies, with a certificate that has run out, or slower and slower: all ends once."""

from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

from adapter.twin import Fault, Kind, TlsFiles, Twin, TwinSettings
from adapter.twin.calls import repeats
from tests.faults.wire import Trouble, Wires
from tests.support import estate as say
from tests.support.certificates import Trials
from tests.support.estate import Command, unique
from tests.support.ports import free_port
from tests.support.rig import Rig, open_rig
from tests.support.wait import eventually

QUICK = {f"SUPPLIER__{limit}_TIMEOUT": "1s" for limit in ("CONNECT", "WRITE", "READ", "TOTAL")}
DOUBTS = '{"AddFaultReport": "1s"}'


async def test_connections_that_a_firewall_has_forgotten_cost_a_time_limit_and_no_command(kafka: str) -> None:
    async with open_rig(kafka) as rig:
        with Wires() as wires:
            wire = wires.lay(urlsplit(rig.twin.url).port or 0)
            url = f"http://{wire.address}"
            limit = {"SUPPLIER__READ_TIMEOUT": "10s"}  # that a call over a connection which works does not come to
            async with rig.worker(SUPPLIER__BASE_URL=url, SUPPLIER__DOUBT_LIMITS=DOUBTS, **limit):
                warm = send(rig, [say.query(unique()) for _ in range(20)])
                await rig.estate.all_final(warm)
                assert wire.links
                wire.begin(Trouble.HALF_OPEN)  # what is kept alive is dead, and nobody says so
                queries, adds = [say.query(unique()) for _ in range(10)], [say.add(unique()) for _ in range(10)]
                send(rig, [*queries, *adds])
                await rig.estate.all_final([*queries, *adds])
                assert kinds(rig, queries) == {"AppointmentAvailabilityFound": 10}
                # Of a report nobody can know whether it has arrived: it is not sent again.
                assert set(kinds(rig, adds)) <= {"FaultReportAdded", "CommandSettled", "CommandOutcomeUnknown"}
                assert not repeats(call for call in rig.twin.calls if call.operation == "addFaultReport")
                later = send(rig, [say.add(unique()) for _ in range(10)])
                await rig.estate.all_final(later)
                assert kinds(rig, later) == {"FaultReportAdded": 10}


async def test_a_certificate_of_the_supplier_that_has_run_out_is_back_pressure_until_it_is_renewed(
    kafka: str, trials: Trials
) -> None:
    good, port = trials.good, free_port()
    expired = TlsFiles(trials.expired_server.certificate, trials.expired_server.key, good.ca)
    renewed = TlsFiles(good.server_certificate, good.server_key, good.ca)
    settings = {
        "SUPPLIER__BASE_URL": f"https://localhost:{port}",
        "SUPPLIER__ALLOW_PLAINTEXT": "false",
        "SUPPLIER__TLS__CERTIFICATE": str(good.client_certificate),
        "SUPPLIER__TLS__KEY": str(good.client_key),
        "SUPPLIER__TLS__CA": str(good.ca),
    }
    async with open_rig(kafka) as rig, rig.worker(**settings) as worker:
        async with Twin(TwinSettings(host="localhost", port=port, tls=expired)) as twin:
            commands = send(rig, [say.add(unique()) for _ in range(10)])
            await eventually(lambda: worker.metric("supplier_call_failures_total", reason="tls") >= 5)
            await eventually(
                lambda: "the server's certificate is refused: certificate has expired" in worker.lines.getvalue()
            )
            assert not twin.calls
        rig.estate.look()
        assert not rig.estate.events
        async with Twin(TwinSettings(host="localhost", port=port, tls=renewed)) as twin:
            await rig.estate.all_final(commands)
            assert kinds(rig, commands) == {"FaultReportAdded": 10}
            assert len(twin.calls) == 10


async def test_a_supplier_that_gets_slower_than_the_time_limit_and_recovers_has_answered_every_query(
    kafka: str,
) -> None:
    async with open_rig(kafka) as rig, rig.worker(**QUICK) as worker:
        commands: list[Command] = []
        for seconds in (0.1, 0.4, 0.9, 1.6):
            rig.twin.clear()
            rig.twin.inject(Fault(Kind.DELAY, seconds=seconds, times=None))
            commands += send(rig, [say.query(unique()) for _ in range(10)])
            await eventually(lambda: {call.key for call in rig.twin.calls} >= {c.key for c in commands})  # noqa: B023 -- called in this turn alone
        await eventually(lambda: worker.metric("supplier_calls_total", result="unclear") >= 10)
        rig.twin.clear()
        await rig.estate.all_final(commands)
        assert kinds(rig, commands) == {"AppointmentAvailabilityFound": 40}


def send(rig: Rig, commands: Sequence[Command]) -> list[Command]:
    rig.estate.put_all([(rig.estate.encode(command), command.key.encode()) for command in commands])
    return list(commands)


def kinds(rig: Rig, commands: Sequence[Command]) -> Counter[str]:
    return Counter(event.type for command in commands for event in rig.estate.of(command))
