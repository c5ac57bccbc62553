"""kill -9 of a worker with default settings: another one goes on, and readers see it, within 30 seconds."""

import time

from adapter.twin import Fault, Kind
from tests.support import estate as say
from tests.support.estate import unique
from tests.support.kafka_door import Api, kafka_door
from tests.support.processes import Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually

PROMISED = 30.0
DEFAULTS = {"KAFKA__SESSION_TIMEOUT": "", "KAFKA__TRANSACTION_TIMEOUT": ""}
"""An empty variable leaves a setting at its default."""


async def test_another_worker_goes_on_and_readers_see_it_within_the_promised_time(
    kafka: str, processes: Processes
) -> None:
    async with open_rig(kafka, partitions=4) as rig, kafka_door(kafka) as door:
        victim = processes.adapter("worker", env=rig.environment(**DEFAULTS, KAFKA__BOOTSTRAP_SERVERS=door.bootstrap))
        await victim.ready(lambda process: process.output.count("partition started") == 4)
        other = processes.adapter("worker", env=rig.environment(**DEFAULTS))
        await other.ready(lambda process: process.output.count("partition started") == 2)
        # It dies in the middle of a transaction, which hides from readers what comes after it.
        rig.twin.inject(Fault(Kind.DELAY, seconds=1.0, times=None))
        for _ in range(40):
            rig.estate.send(say.add(unique()))
        await eventually(lambda: len(rig.twin.log) > 20, what="calls under way")
        door.hold_requests(Api.END_TXN)
        for _ in range(40):  # the outcomes of the first may all be committed by now
            rig.estate.send(say.add(unique()))
        await eventually(lambda: door.held, what="a transaction that does not end")
        victim.kill()
        killed = time.monotonic()
        await door.shut()
        rig.twin.clear()
        later = [say.add(unique()) for _ in range(40)]
        for command in later:
            rig.estate.send(command)
        await rig.estate.all_final(later, within=PROMISED)
        print(f"all commands sent after the kill had ended {time.monotonic() - killed:.1f} s after it")
        assert await other.stop() == 0
