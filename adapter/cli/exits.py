"""The exit codes of the process."""

from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    WRONG = 2
    DIFFERENT = 3
    NOT_ACCEPTED = 4
    INTERRUPTED = 130

    @staticmethod
    def table() -> str:
        """For --help."""
        return "\n".join(f"  {code.value:<4} {meaning}" for code, meaning in _MEANINGS.items())


_MEANINGS = {
    Exit.DONE: "done",
    Exit.FAILED: "failed: an external system did not answer, or refused",
    Exit.WRONG: "wrong usage, settings, schemas or input; nothing was done",
    Exit.DIFFERENT: "topics, schemas check, check: something that is needed is missing or different",
    Exit.NOT_ACCEPTED: "send --wait: not accepted, or no outcome yet; twin notify: not acknowledged; quarantine again, "
    "translate, call: not accepted, not readable, or against the rules",
    Exit.INTERRUPTED: "interrupted",
}
