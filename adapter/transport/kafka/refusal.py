"""Errors that only a change of settings can end, translated into the name of the setting."""

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

_CURES: Final = {
    "No provider for SASL mechanism": "; set ADAPTER_KAFKA__PROPERTIES__SASL_MECHANISM to what the brokers take "
    "(PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER)",
    "ssl.key.location failed": "; name the PEM key of ssl.certificate.location, and if it is encrypted a file with "
    "its password in ADAPTER_KAFKA__PROPERTIES_FILES__SSL_KEY_PASSWORD",
    ".location failed": "; name a PEM file that can be read",
}
"""What to do, by words in librdkafka's error text."""


@contextmanager
def properties_told() -> Iterator[None]:
    """Around the creation of a client: raises Stop if librdkafka refuses one of its properties."""
    try:
        yield
    except KafkaException as error:
        said = error.args[0].str().strip()
        cure = next((cure for words, cure in _CURES.items() if words in said), "")
        raise Stop(f"ADAPTER_KAFKA__PROPERTIES: {said}{cure}") from None
    except (ImportError, TypeError, ValueError) as error:  # for properties that the Python wrapper checks itself
        raise Stop(f"ADAPTER_KAFKA__PROPERTIES: {' '.join(str(error).split())}") from None


def refused_setting(error: KafkaError) -> Stop | None:
    """The Stop to raise if the brokers refuse the value of a setting, otherwise None."""
    problem = _SETTINGS.get(error.code())
    return None if problem is None else Stop(problem)
