"""The demo: runs the whole product on one machine, plays a story of several tickets and verifies its outcome."""

from adapter.demo.run import run

__all__ = ["run"]
