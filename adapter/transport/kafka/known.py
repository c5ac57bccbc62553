"""Whether a client still knows a broker.

librdkafka forgets the brokers that an answer about topics does not name. A broker that was frozen names none, until it
is back in the controller's books. A client that asks it then knows nobody any more, not even `bootstrap.servers`, and
never connects again (confluentinc/librdkafka#5301). It tells so nowhere but in its statistics.
"""

from typing import Any, Final

FORGOTTEN: Final = "the client has forgotten all brokers (confluentinc/librdkafka#5301)"

_INTERVAL: Final = 3_000
"""Milliseconds between two statistics. A client must be polled, or they pile up in its memory."""
_ANY: Final = '"source":"'
"""How the statistics mark a broker; every client has some that are none, such as its group's coordinator. Brokers come
before the topics, so a search for this does not read far.
"""
_SOURCES: Final = (f'{_ANY}learned"', f'{_ANY}configured"')
"""How they mark one that can be asked for others."""


class KnownBrokers:
    """Of one client, which is to be made with these `properties`."""

    def __init__(self) -> None:
        self._none = 0
        """Statistics in a row without a broker. One alone may be from between forgetting and learning."""

    def properties(self) -> dict[str, Any]:
        return {"statistics.interval.ms": _INTERVAL, "stats_cb": self._look}

    @property
    def forgotten(self) -> bool:
        """Whether another client is needed."""
        return self._none > 1

    def _look(self, statistics: str) -> None:
        none = _ANY in statistics and not any(source in statistics for source in _SOURCES)
        self._none = self._none + 1 if none else 0
