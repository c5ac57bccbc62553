"""Lanes: one queue per key, so that commands of one ticket run in order and different tickets in parallel.

A lane exists while it holds work. The caller that puts the first item into a lane starts a task for it, which takes
items until there is none left; then the lane is gone.
"""

from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """The lanes of one assignment of one partition: order is promised per key within its partition."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[bytes, list[Item]] = {}  # of mostly one item: a deque would take ten times the memory

    def put(self, key: bytes, item: Item) -> bool:
        """Queue `item`. True if the lane was idle: the caller must start it."""
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = [item]
            return True
        queue.append(item)
        return False

    def head(self, key: bytes) -> Item | None:
        """The item whose turn it is; it stays in the lane until `done`."""
        queue = self._queues.get(key)
        return queue[0] if queue else None

    def done(self, key: bytes) -> Item | None:
        """The head is finished: drop it and return the next item, None if the lane is gone."""
        queue = self._queues[key]
        del queue[0]
        if queue:
            return queue[0]
        del self._queues[key]
        return None

    def behind(self, key: bytes) -> tuple[Item, ...]:
        """The items that wait behind the head, in order."""
        return tuple(self._queues.get(key, ())[1:])

    def strike(self, key: bytes, items: Collection[Item]) -> None:
        """Remove these items, which wait behind the head, since they were finished before their turn."""
        queue = self._queues[key]
        queue[1:] = [item for item in queue[1:] if item not in items]

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queues)
