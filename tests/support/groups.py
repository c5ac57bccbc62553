"""Consumer groups as the adapter makes them."""

import asyncio
from contextlib import suppress

from adapter.core.errors import Unavailable
from adapter.transport.kafka.consumer import introduce
from tests.support.wait import eventually


async def introduced(bootstrap: str, topic: str, group: str) -> None:
    """Returns when the group stands at the beginning of the topic: leaders of what is new are not known everywhere at
    once."""

    async def stands() -> bool:
        with suppress(Unavailable):
            await asyncio.to_thread(introduce, {"bootstrap.servers": bootstrap}, topic, group)
            return True
        return False

    await eventually(stands, within=20, what="a group with offsets")
