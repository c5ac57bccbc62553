"""Ports for servers that must be told theirs before they start and keep it over a restart."""

import secrets
import socket

# Below the range from which systems take the local ports of outgoing connections (32768 on Linux, 49152 elsewhere):
# so no client can sit on a server's port while that is down.
FIRST, LAST = 20_000, 32_000


def free_port() -> int:
    """A TCP port of the loopback interface on which nothing listens. Chosen at random, not through `random`, which
    is seeded alike in every run: two runs at once rarely meet."""
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as probe:
            # A port that was just in use may be taken again, as by the servers themselves.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
