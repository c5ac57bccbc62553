"""The demo: the whole product on one machine, a story of several tickets, and the proof that it went as told."""

from adapter.demo.run import run

__all__ = ["run"]
