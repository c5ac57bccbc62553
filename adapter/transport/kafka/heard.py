"""What librdkafka reports of its connections. Its exceptions only say that nobody answers."""

import re
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError

UNANSWERED: Final = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
    }
)
"""Errors that say that nobody answers, and not why."""

_SILENT: Final = (
    "all brokers end our connections without a word, or do not answer on them: they stop or hang, "
    "ADAPTER_KAFKA__PROPERTIES__SECURITY_PROTOCOL is not that of their listener, or we have too many (their "
    "max.connections.per.ip)"
)
_AUTHORITIES: Final = re.compile("OAUTHBEARER token: .*(trust anchors|certificate)")
"""Words of librdkafka where it can't trust the endpoint of its tokens. The library in its wheels looks for authorities
only where Red Hat keeps them.
"""


class Heard:
    """The best explanation of the state of a client's connections, for the one message that we write."""

    def __init__(self) -> None:
        self.text = ""
        """Empty while nothing was reported."""
        self.down: Callable[[str], None] = lambda _: None
        """Called when no broker answers any more, unless `told`."""
        self.told = False

    def properties(self) -> dict[str, Any]:
        """Properties of a client. By itself it would write to standard error, many times, what we say once."""
        return {"error_cb": self._hear, "log_level": 0}

    def why(self, error: KafkaError) -> str:
        """The text for this error. If nobody answered, what was heard of the connections explains it."""
        return (self.text if error.code() in UNANSWERED else "") or error.str()

    def _hear(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            # It adds nothing to an earlier error. Without one, brokers have closed the connections or not answered on
            # them, which librdkafka does not report as an error.
            self.text = self.text or _SILENT
            if not self.told:
                self.told = True
                self.down(error.str())
        elif _AUTHORITIES.search(error.str()):
            self.text = (
                f"{error.str()}; set ADAPTER_KAFKA__PROPERTIES__HTTPS_CA_LOCATION to a PEM file of the authorities of "
                "the token endpoint, such as /etc/ssl/certs/ca-certificates.crt"
            )
        else:
            self.text = error.str()
