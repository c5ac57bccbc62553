"""Makes the figures of docs/performance.md from bench/results/: the tables between its two marks, and the plots.

    python -m bench.report             from bench/results/*.jsonl
    python -m bench.report FILE…       from these

Of repeats (equal case and conditions) the median is shown, and least and most where they differ.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import compare, model
from bench.commands import CASES, GROWTH
from bench.measurement import RESULTS, Measurement, read

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
PLOTS: Final = PAGE.parent / "performance"
_BEGIN: Final = "<!-- figures: made by `make bench-report` -->"
_END: Final = "<!-- end of figures -->"

_BROKER_MS: Final = 0.06
"""CPU of the broker for one command: its record read, an event and two journal entries written."""

Groups = Mapping[str, Sequence[Measurement]]


def page(text: str, found: Sequence[Measurement]) -> str:
    """The page with these figures between its marks. Raises ValueError if it has no marks."""
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page needs a line {_BEGIN} and a line {_END}")
    figures = "\n".join(_figures(found))
    return f"{head}{begin}\n\n{figures}\n{end}{tail}"


def _figures(found: Sequence[Measurement]) -> Iterator[str]:
    by: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in found:
        by[measurement.case].append(measurement)
    yield from _machines(found)
    yield from _throughput(by)
    yield from _latency(by)
    yield from _notifications(by)
    yield from _memory(by)
    yield from _growth(by)
    yield from _model(by)
    yield from _compared(by)
    yield from _steps(by)


def _machines(found: Sequence[Measurement]) -> Iterator[str]:
    machines = {
        f"{m.machine['cpu']}, {m.machine['cores']} cores, {m.machine['memory_gib']} GiB, {m.machine['system']}, "
        f"Python {m.machine['python']}, librdkafka {m.machine['confluent-kafka']}, lxml {m.machine['lxml']}"
        for m in found
    }
    commits = sorted({str(m.machine["commit"]) for m in found})
    days = sorted({m.at[:10] for m in found})
    yield (
        f"Measured {days[0]} to {days[-1]} on {'; '.join(sorted(machines))}; commits {', '.join(commits)}."
        if found
        else ""
    )
    yield ""


def _throughput(by: Groups) -> Iterator[str]:
    names = ("rate_per_s", "cpu_ms_per_command", "cpu_ms_per_command_second_half", "machine_cores", "peak_memory_mib")
    rows = [
        (*_named(case, ms[0]), *(_of(ms, name) for name in names))
        for case in CASES
        for ms in _repeats(by.get(case, ()))
    ]
    yield from _table(
        "Throughput",
        (
            "case",
            "commands",
            "commands/s, first to last call",
            "CPU ms per command",
            "second half",
            "cores in use",
            "peak MiB",
        ),
        rows,
    )


def _named(case: str, found: Measurement) -> tuple[str, str]:
    given = found.conditions
    differ = [
        f"{name} {value}" for name, value in given.items() if value != getattr(CASES[case], name) and name != "tls"
    ]
    way = "mutual TLS" if given["tls"] else "plain"
    return f"{case}, {way}{', ' if differ else ''}{', '.join(differ)}", f"{given['commands']:,}"


def _latency(by: Groups) -> Iterator[str]:
    names = (
        "to_request_p50_ms",
        "to_request_p99_ms",
        "to_event_p50_ms",
        "to_event_p99_ms",
        "added_p50_ms",
        "added_p99_ms",
    )
    rows = [
        (f"{ms[0].conditions['rate_per_s']:g}/s, {'mutual TLS' if ms[0].conditions['tls'] else 'plain'}",
         *(_of(ms, name) for name in names))
        for ms in _repeats(by.get("L", ()))
    ]  # fmt: skip
    heads = ("L", "to request p50 ms", "p99", "reply to event p50 ms", "p99", "added in all p50 ms", "p99")
    yield from _table("Latency above the supplier's own", heads, rows)


def _notifications(by: Groups) -> Iterator[str]:
    found = _repeats(by.get("N", ()))
    names = list(dict.fromkeys(name for ms in found for m in ms for name in m.figures))
    rows = []
    for ms in found:
        given = ms[0].conditions
        pace = given["rate"] if isinstance(given["rate"], str) else f"{given['rate']:g}/s"
        way = "mutual TLS" if given["tls"] else "plain"
        rows.append((f"{given['connections']} connections, {pace}, {way}", *(_of(ms, name) for name in names)))
    yield from _table("Notifications", ("N", *(name.replace("_", " ") for name in names)), rows)


def _memory(by: Groups) -> Iterator[str]:
    rows = []
    for case, what in (
        ("R", "restart with {commands:,} commands waiting"),
        ("M full", "a full window"),
        ("M load", "{minutes:g} min of load"),
        ("T", "the projector with {tickets:,} tickets"),
    ):
        for ms in _repeats(by.get(case, ())):
            rows += [(what.format(**ms[0].conditions), name, _of(ms, name)) for name in ms[0].figures]
    yield from _table("Restart, memory, tickets", ("when", "what", "found"), rows)


def _growth(by: Groups) -> Iterator[str]:
    for name in GROWTH:
        rows = [
            (
                f"{ms[0].conditions[name]:,}",
                _of(ms, "rate_per_s"),
                _of(ms, "cpu_ms_per_command"),
                _of(ms, "peak_memory_mib"),
            )
            for ms in sorted(_repeats(by.get(f"G {name}", ())), key=lambda ms: ms[0].conditions[name])
        ]
        yield from _table(
            f"Growth with {name.replace('_', ' ')}", (name, "commands/s", "CPU ms per command", "peak MiB"), rows
        )
        if rows:
            yield f"![{name}](performance/{name}.svg)"
            yield ""


def _model(by: Groups) -> Iterator[str]:
    """The arithmetic of docs/scaling.md beside what was measured, with the costs of each run itself."""
    rows = []
    for case, found in by.items():
        for ms in _repeats(found) if case in CASES or case.startswith("G ") else ():
            given, machine = ms[0].conditions, ms[0].machine
            costs = model.Costs(_middle(ms, "cpu_ms_per_command"), _middle(ms, "twin_cpu_ms_per_command") + _BROKER_MS)
            plan = model.Plan(
                keys=given["keys"],
                in_flight=given["in_flight"],
                latency_ms=given["latency_ms"],
                workers=given["workers"],
                cores=machine["cores"],
                skewed=given["skewed"],
            )
            said, was = model.rate(plan, costs), _middle(ms, "rate_per_s")
            what = case if case in CASES else f"{case} {given[case[2:]]:,}"
            rows.append(
                (f"{what}{', mutual TLS' if given['tls'] else ''}", _short(said), _short(was), f"{was / said:.2f}")
            )
    heads = ("case", "model, commands/s", "measured", "measured to model")
    yield from _table("The model of scaling.md against what was measured", heads, rows)


def _compared(by: Groups) -> Iterator[str]:
    found = [m for case, ms in by.items() if case.startswith("compare ") for m in ms]
    if found:
        yield "### Beside what a user would pick instead"
        yield ""
        yield compare.summary(found)
        yield ""


def _steps(by: Groups) -> Iterator[str]:
    costs: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in by.get("step", ()):
        costs[str(measurement.conditions["step"])].append(measurement)
    rows = [(name, str(ms[0].conditions["path"]), _of(ms, "cpu_us"), _of(ms, "ratio")) for name, ms in costs.items()]
    yield from _table("Steps", ("step", "path", "CPU µs", "ratio to the yardstick"), rows)


def _repeats(found: Iterable[Measurement]) -> list[list[Measurement]]:
    groups: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in found:
        groups[repr(sorted(measurement.conditions.items(), key=lambda each: each[0]))].append(measurement)
    return list(groups.values())


def _of(found: Sequence[Measurement], name: str) -> str:
    values = [float(value) for m in found if (value := m.figures.get(name)) is not None]
    if not values:
        return ""
    middle, least, most = median(values), min(values), max(values)
    return _short(middle) if least == most else f"{_short(middle)} ({_short(least)} to {_short(most)})"


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    if not rows:
        return
    yield f"### {title}"
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""


def plot(found: Sequence[Measurement], folder: Path) -> None:
    """Rate and CPU per command over each condition that was grown, one SVG each."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- needed here alone, and not by who only measures

    folder.mkdir(parents=True, exist_ok=True)
    for name in GROWTH:
        groups = _repeats(m for m in found if m.case == f"G {name}")
        points = sorted(
            (ms[0].conditions[name], _middle(ms, "rate_per_s"), _middle(ms, "cpu_ms_per_command")) for ms in groups
        )
        if not points:
            continue
        figure, rate = plt.subplots(figsize=(6, 3))
        cost = rate.twinx()
        at = [max(point[0], 1) for point in points]
        rate.plot(at, [point[1] for point in points], "o-", color="tab:blue")
        cost.plot(at, [point[2] for point in points], "s--", color="tab:orange")
        rate.set(xlabel=name.replace("_", " "), xscale="log", ylim=(0, None))
        rate.set_ylabel("commands/s", color="tab:blue")
        cost.set_ylabel("CPU ms per command", color="tab:orange")
        cost.set_ylim(0, None)
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def _middle(found: Sequence[Measurement], name: str) -> float:
    return median(float(m.figures[name] or 0) for m in found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="results (bench/results/*.jsonl)")
    given = parser.parse_args()
    found = read(given.files or sorted(RESULTS.glob("*.jsonl")))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    plot(found, PLOTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
