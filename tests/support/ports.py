"""Ports for servers that must be told theirs before they start and keep it over a restart, or for nobody at all."""

import itertools
import os
import secrets
import socket

# Below the range from which systems take the local ports of outgoing connections (32768 on Linux, 49152 elsewhere):
# so no client can sit on a server's port while that is down.
FIRST, LAST = 20_000, 32_000

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_mine = range(FIRST + _worker, LAST, _workers)
# Not in the order of `random`, which is seeded alike in every run: two runs at once rarely meet.
_turns = itertools.cycle(secrets.SystemRandom().sample(_mine, len(_mine)))


def free_port() -> int:
    """A TCP port of the loopback interface on which nothing listens. None is given twice, until all have been, not
    even to the other processes of a run: on a port that a test wants to be nobody's, no other test has a server.
    """
    while True:
        port = next(_turns)
        with socket.socket() as probe:
            # A port that was just in use may be taken again, as by the servers themselves.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
