"""`python -m bench CASE…`: measure, one JSON line per measurement on standard output and in bench/results/.

bench/commands.py, bench/notifications.py and bench/tickets.py say what the cases are; `make bench` runs those that take
minutes, `make bench-smoke` the steps.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import commands, tickets
from bench.commands import CASES
from bench.measurement import LATEST, Measurement, append, line, taken, yardstick
from bench.notifications import notifications
from bench.stage import Stage, open_stage
from bench.steps import STEPS, measured


def _throughput(case: str) -> "Case":
    def measure(stage: Stage, given: argparse.Namespace) -> Iterator[Measurement]:
        conditions = CASES[case]
        chosen = {name: getattr(given, name) for name in _CHOICES if getattr(given, name) is not None}
        for tls in _ways(given):
            yield commands.throughput(stage, case, replace(conditions, **chosen, tls=tls))

    return measure


def _latency(stage: Stage, given: argparse.Namespace) -> Iterator[Measurement]:
    for tls in _ways(given):
        conditions = replace(CASES["A"], tls=tls)
        for rate in given.rates or (100.0, commands.busy(stage, conditions)):
            yield commands.latency(stage, conditions, rate=rate, seconds=given.seconds)


def _restart(stage: Stage, given: argparse.Namespace) -> Iterator[Measurement]:
    yield commands.restart(stage, replace(CASES["A"], commands=given.commands or 1_000_000))


def _memory(stage: Stage, given: argparse.Namespace) -> Iterator[Measurement]:
    full = replace(CASES["A"], commands=given.commands or 12_000, keys=12_000, latency_ms=120_000)
    yield commands.unfinished(stage, full)
    yield commands.endurance(stage, replace(CASES["A"], latency_ms=20), minutes=given.minutes)


def _notifications(stage: Stage, given: argparse.Namespace) -> Iterator[Measurement]:
    for tls in _ways(given):
        yield from notifications(stage, tls=tls, seconds=given.seconds)


def _growth(stage: Stage, given: argparse.Namespace) -> Iterator[Measurement]:
    yield from commands.growth(stage, tls=given.tls is True, only=given.only, commands=given.commands or 20_000)


def _tickets(stage: Stage, given: argparse.Namespace) -> Iterator[Measurement]:
    yield tickets.projector(stage, tickets.Conditions(tickets=given.tickets))


def _steps(_: Stage, __: argparse.Namespace) -> Iterator[Measurement]:
    for step in STEPS:
        before = yardstick()
        cost = measured(step)
        figures = {"cpu_us": cost.microseconds, "ratio": cost.ratio}
        yield taken("step", {"step": cost.name, "path": cost.path}, figures, before=before)


Case = Callable[[Stage, argparse.Namespace], Iterator[Measurement]]

_CASES: Final[dict[str, Case]] = {
    "A": _throughput("A"),
    "B": _throughput("B"),
    "S": _throughput("S"),
    "L": _latency,
    "N": _notifications,
    "R": _restart,
    "M": _memory,
    "G": _growth,
    "T": _tickets,
    "steps": _steps,
}

_CHOICES: Final = ("operation", "commands", "keys", "in_flight", "workers")


def _ways(given: argparse.Namespace) -> tuple[bool, ...]:
    return (False, True) if given.tls is None else (given.tls,)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="+", choices=sorted(_CASES), metavar="CASE", help=", ".join(_CASES))
    parser.add_argument("--results", type=Path, default=LATEST, help="file the lines are added to (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="repeat every case so often, in turns")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, help="mutual TLS or plain; default: both")
    parser.add_argument("--operation", choices=("add", "update"))
    parser.add_argument("--commands", type=int, metavar="N")
    parser.add_argument("--keys", type=int, metavar="N")
    parser.add_argument("--in-flight", type=int, metavar="N")
    parser.add_argument("--workers", type=int, metavar="N")
    parser.add_argument(
        "--rates", type=float, nargs="+", help="L: commands per second; default: 100, and 70 %% of the maximum"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="L, N: for so long")
    parser.add_argument("--minutes", type=float, default=30.0, help="M: for so long")
    parser.add_argument("--tickets", type=int, default=1_000_000, metavar="N", help="T: tickets there are")
    parser.add_argument("--only", choices=tuple(commands.GROWTH), help="G: grow this alone")
    given = parser.parse_args(argv)
    with open_stage() as stage:
        for _ in range(given.rounds):
            for case in given.cases:
                for measurement in _CASES[case](stage, given):
                    append(measurement, given.results)
                    print(line(measurement), flush=True)
                stage.clean()
    return 0


if __name__ == "__main__":
    sys.exit(main())
