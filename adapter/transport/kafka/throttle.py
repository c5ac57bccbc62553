"""What brokers tell a client that a quota holds back. librdkafka logs nothing of it: requests just time out."""

from collections.abc import Callable

from confluent_kafka import ThrottleEvent


def throttles(throttled: Callable[[float], None]) -> Callable[[ThrottleEvent], None]:
    """The `throttle_cb` that passes on for how many seconds a broker takes no further request, if for any."""

    def told(event: ThrottleEvent) -> None:
        if event.throttle_time > 0:  # 0: it no longer does
            throttled(event.throttle_time)

    return told
