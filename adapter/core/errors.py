"""The few errors that cross a module's border; each type says what to do about it.

Stop          ours to mend before anything runs: wrong settings, schemas that do not fit. The process ends.
Unavailable   something outside does not answer just now: wait and try again.
Undecodable   this record can never become a command: it goes to the dead letters.
Foreign       neither can this one, and no release of ours has written it: in a topic of ours it is skipped.
Unreadable    these bytes are not an XML document we admit.
Refused       what was given breaks rules: tell all of them to whoever gave it.
Abandoned     the partition of this work is no longer ours: drop it, publish nothing.
"""

from adapter.core.operation import Problem


class Stop(Exception):  # noqa: N818 -- named for what to do
    """The process must not go on; `problems` has one line each, all of them."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Unavailable(Exception):  # noqa: N818 -- named for what it says
    """Try again later. Nothing was done."""


class Reasoned(Exception):  # noqa: N818 -- named for what it has
    """`reason` is a slug from a closed set (a header, a metric label); `detail` is for a person and carries no value of
    a record or message.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Undecodable(Reasoned):
    """A record that can never become a command."""


class Foreign(Undecodable):
    """Bytes that no release of ours has written. Anything else that can't be decoded in a topic of ours may be ours:
    the registry may not have the schema it was written with, or no longer. To skip that would be to lose it.
    """


class Unreadable(Reasoned):
    """Bytes that are not admitted as an XML document."""


class Refused(Exception):  # noqa: N818 -- named for what it says
    """What was given breaks rules; `problems` has all of them, none repeats a value."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class Abandoned(Exception):  # noqa: N818 -- named for what it says
    """The partition was revoked or lost while the work was under way. Drop the work."""
