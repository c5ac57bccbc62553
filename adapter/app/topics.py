"""The topics of a role: examined at its start, and checked while it runs, since a change would break its guarantees.

A role stops where it would go on wrongly: partitions were added, a topic was made anew. It only tells of a topic whose
configuration is wrong: commands in a topic that is compacted do not get more by waiting.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from adapter.core.errors import Stop, Unavailable
from adapter.settings import Topics
from adapter.telemetry import Log, Metrics
from adapter.telemetry import metrics as m
from adapter.transport.kafka.admin import Admin, Difference, require_topics, wanted

_CHECK: Final = 5.0
"""Seconds between two checks of the topics."""
_GROWN: Final = 'see "Partitions were added" in docs/disaster.md'


@dataclass(frozen=True, slots=True)
class Seen:
    """The topics as they were at the start."""

    partitions: int
    """Number of partitions of each."""
    identities: Mapping[str, str]
    """Identities of the topics whose offsets we remember."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitions:
    """Co-partitioned topics: all must have the same number of partitions, so that a key has the same one in each.

    `count` returns the numbers of partitions of the topics that exist, `identify` their identities; both raise
    Unavailable.
    """

    count: Callable[[Sequence[str]], Mapping[str, int]]
    identify: Callable[[Sequence[str]], Mapping[str, str]]
    keyed: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Topics that must exist as well."""
    originals: Mapping[str, str]
    """Topics whose offsets we remember, so that they must not be recreated, with the chapter of docs/disaster.md about
    that.
    """

    def look(self) -> Seen:
        """Examine the topics. Raises Stop if one is missing or their numbers of partitions differ, and Unavailable."""
        counts = self.count((*self.keyed, *self.others))
        require_topics((*self.keyed, *self.others), counts)
        if len({counts[name] for name in self.keyed}) > 1:
            found = ", ".join(f"{name} has {counts[name]}" for name in self.keyed)
            raise Stop(f"topics of one key must have the same number of partitions: {found}; {_GROWN}")
        identities = self.identify(tuple(self.originals))
        require_topics(self.originals, identities)
        return Seen(counts[self.keyed[0]], identities)

    def check(self, before: Seen) -> None:
        """Raises Stop if a topic was repartitioned or recreated since; raises Unavailable.

        A topic that a broker does not know for a moment, because it has just started, counts as unchanged.
        """
        changed = [
            f"{name} had {before.partitions} partitions and has {now}, so keys have moved; {_GROWN}"
            for name, now in self.count(self.keyed).items()
            if now not in (0, before.partitions)
        ]
        changed += [
            f'{name} was deleted and made anew while we ran: see "{self.originals[name]}" in docs/disaster.md'
            for name, now in self.identify(tuple(self.originals)).items()
            if now != before.identities[name]
        ]
        if changed:
            raise Stop(*changed)


class Watch:
    """Asks Kafka every few seconds for the topics of a flow, and shows whether it answers and they are as they must be.

    So a flow that has nothing to do notices, too.
    """

    def __init__(
        self, flow: str, admin: Admin, log: Log, metrics: Metrics, *, topics: Topics, names: Iterable[str]
    ) -> None:
        """`names`: those of the topics that the flow uses."""
        used = {*names}
        self._flow = flow
        self._admin = admin
        self._wants = [want for want in wanted(topics) if want.name in used]
        self._log = log
        self._silent = ""
        """Why Kafka does not answer; empty while it does."""
        self._wrong: list[Difference] = []
        metrics.watch(m.KAFKA_UNREACHABLE, lambda: {flow: float(bool(self._silent))})
        metrics.watch(m.TOPICS_MISCONFIGURED, lambda: {flow: float(len({each.topic for each in self._wrong}))})

    def cut_off(self) -> str:
        """Why the flow can't work, if Kafka did not answer when it was last asked; otherwise empty."""
        return f"the {self._flow} can't reach Kafka: {self._silent}" if self._silent else ""

    def renew(self, admin: Admin) -> None:
        """Ask with new credentials."""
        self._admin = admin

    @asynccontextmanager
    async def running(
        self, check: Callable[[], None] = lambda: None, failed: Callable[[Exception], None] = lambda _: None
    ) -> AsyncIterator[None]:
        """Watch within the block. `check` is called on a thread, `failed` with any error of it but Unavailable."""

        async def watch() -> None:
            while True:
                try:
                    await asyncio.to_thread(self._look)
                    await asyncio.to_thread(check)
                except Unavailable as error:
                    self._unanswered(str(error))
                except Exception as error:  # noqa: BLE001 -- or the flow would go on with topics that nobody checks
                    failed(error)
                else:
                    self._answered()
                await asyncio.sleep(_CHECK)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()

    def _look(self) -> None:
        """Raises Unavailable."""
        try:
            found = self._admin.misconfigured(self._wants)
        except Stop:  # the cluster does not tell
            return
        for each in found:
            if each not in self._wrong:
                self._log.error("topic misconfigured", topic=each.topic, problem=each.text, fix=each.fix)
        self._wrong = found

    def _unanswered(self, why: str) -> None:
        if not self._silent:
            self._log.warning("Kafka does not answer", reason=why)
        self._silent = why

    def _answered(self) -> None:
        if self._silent:
            self._silent = ""
            self._log.info("Kafka answers again")
