"""How a server of asyncio's streams stops listening without leaving a connection open."""

import asyncio


async def stop_listening(server: asyncio.Server) -> None:
    """Returns when nobody is taken in any more. What was accepted at this moment comes to its callback, which must
    turn it away.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening)
    await asyncio.sleep(0)  # what was accepted gets its transport, which a closed server would leave it without
    server.close()
