"""A limit of bytes that long messages share: the replies of all connections, or the requests of all lanes."""

from collections import deque
from collections.abc import Callable


class Allowance:
    """Grants shares of `size` bytes in the order of the requests. A request that does not fit yet holds up all later
    ones; otherwise it could wait for ever.
    """

    def __init__(self, size: int) -> None:
        self.left = self._size = size
        self._waiting: deque[Share] = deque()

    def request(self, size: int, on_grant: Callable[[], None]) -> "Share":
        """`on_grant` is called on the grant, unless the share is granted at once. A size above the limit counts as the
        limit.
        """
        share = Share(self, min(size, self._size), on_grant)
        if self._waiting or share.size > self.left:
            self._waiting.append(share)
        else:
            self.left -= share.size
            share.granted = True
        return share

    def resize(self, share: "Share", size: int) -> None:
        """Reduce a share, or withdraw its request, and grant what fits now."""
        if share.granted:
            self.left += share.size - size
        elif share.size:
            self._waiting.remove(share)
        share.size = size
        while self._waiting and self._waiting[0].size <= self.left:
            first = self._waiting.popleft()
            self.left -= first.size
            first.granted = True
            first.on_grant()


class Share:
    """The part of the allowance that one message holds or waits for."""

    __slots__ = ("_allowance", "granted", "on_grant", "size")

    def __init__(self, allowance: Allowance, size: int, on_grant: Callable[[], None]) -> None:
        self.granted = False
        self.size = size
        self.on_grant = on_grant
        self._allowance = allowance

    def shrink(self, size: int) -> None:
        """Keep at most `size` bytes of a granted share."""
        self._allowance.resize(self, min(size, self.size))

    def release(self) -> None:
        """Return all of it, or withdraw the request. Idempotent."""
        self._allowance.resize(self, 0)
