"""What librdkafka or the brokers refuse for good, told by the setting that is to be changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from adapter.core.errors import Stop

_SETTINGS: Final = {
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "ADAPTER_KAFKA__TRANSACTION_TIMEOUT: is longer than the brokers allow "
    "(their transaction.max.timeout.ms)",
    KafkaError.INVALID_SESSION_TIMEOUT: "ADAPTER_KAFKA__SESSION_TIMEOUT: is not what the brokers allow "
    "(their group.min.session.timeout.ms and group.max.session.timeout.ms)",
}


@contextmanager
def properties_told() -> Iterator[None]:
    """While a client is made: Stop if librdkafka refuses one of its properties."""
    try:
        yield
    except KafkaException as error:
        raise Stop(f"ADAPTER_KAFKA__PROPERTIES: {error.args[0].str().strip()}") from None
    except (ImportError, TypeError, ValueError) as error:  # of one that its wrapper for Python looks at by itself
        raise Stop(f"ADAPTER_KAFKA__PROPERTIES: {' '.join(str(error).split())}") from None


def refused_setting(error: KafkaError) -> Stop | None:
    """What to end with if the brokers refuse the value of a setting."""
    problem = _SETTINGS.get(error.code())
    return None if problem is None else Stop(problem)
