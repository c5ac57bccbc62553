"""Plays the story, shows it and verifies its outcomes."""

import asyncio
import inspect
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from adapter.demo.board import DEAD_LETTER, QUARANTINED, Board, Unexpected
from adapter.demo.display import Display, Ink
from adapter.demo.play import Reader, Ticket, told
from adapter.demo.stage import LOG, Stage, stage, wait_until
from adapter.demo.story import STORY, Scene
from adapter.transport.kafka.client import Sender
from adapter.twin import Twin
from adapter.twin.deliveries import End
from adapter.worker.events import message_id

_STORY_LIMIT: Final = 120.0
"""Seconds for the whole story; it takes about five."""

_MISSING_LIMIT: Final = 20.0
"""Seconds to wait for outcomes after the last scene has ended."""

_STOP_LIMIT: Final = 15.0
"""Seconds to stop in after a signal; Kafka's clients wait for minutes if their cluster has gone."""

_QUIET: Final = 0.3
"""Seconds to wait for surplus outcomes, after the worker has finished everything."""


async def run(
    *, kafka: str | None = None, registry: str | None = None, keep: bool = False, story: Mapping[str, Scene] = STORY
) -> int:
    """Play `story`, scenes by ticket. 0 if every outcome was the expected one, 1 if not, 128 and the signal's number
    if a signal ended it before that or it did not stop in time. `kafka` and `registry` are addresses of real ones;
    `keep` stays until a signal.

    Raises Stop and Unavailable if something cannot be started.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(16))  # four of them only wait for records
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def ask(number: signal.Signals) -> None:
        if asked.done():  # the second signal: end at once
            os._exit(128 + number)
        asked.set_result(number)
        loop.call_later(_STOP_LIMIT, os._exit, 128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask, number)
    folder = Path(tempfile.mkdtemp(prefix="fault-adapter-demo-"))
    demo = _Demo(Display(sys.stdout), folder, asked)
    show = asyncio.create_task(demo.show(kafka=kafka, registry=registry, keep=keep, story=story))
    await asyncio.wait((show, asked), return_when=asyncio.FIRST_COMPLETED)
    if not show.done() and not demo.staying:
        show.cancel()
        _say(demo.display, "interrupted: stopping", Ink.FAINT)
    await asyncio.wait((show,))
    log = folder / LOG
    failed = not show.cancelled() and (show.exception() is not None or show.result() != 0)
    if not (failed and log.exists() and _say(demo.display, f"the adapter's log is {log}")):
        shutil.rmtree(folder, ignore_errors=True)
    return 128 + asked.result() if show.cancelled() else show.result()


def _say(display: Display, text: str, ink: Ink = Ink.PLAIN) -> bool:
    """Print a line. Returns whether that was possible: after `adapter demo | head` it is not, but there is still a
    folder to remove.
    """
    try:
        display.say(text, ink)
    except OSError:
        return False
    return True


class _Demo:
    """One run of the demo."""

    def __init__(self, display: Display, folder: Path, asked: "asyncio.Future[signal.Signals]") -> None:
        self.display = display
        self.staying = False
        """Whether the story is over and everything is kept running."""

        self._folder = folder
        self._asked = asked

    async def show(self, *, kafka: str | None, registry: str | None, keep: bool, story: Mapping[str, Scene]) -> int:
        say = self.display.say
        say("fault-adapter demo", Ink.BOLD)
        async with stage(kafka=kafka, registry=registry, keep=keep, folder=self._folder) as running:
            self.display.facts(_surroundings(running, self._folder))
            say()
            for reference, scene in story.items():
                say(f"  {reference:<11} {inspect.getdoc(scene) or ''}".rstrip())
            say()
            say("-> a command from the estate    <- an event from the adapter    ** at the supplier", Ink.FAINT)
            board = Board()
            failures = await self._play(running, board, story)
            messages = _messages(board, running.twin)
            found = board.problems(messages, [*failures, *_unacknowledged(running.twin)])
            say()
            self.display.summary(board, found, messages)
            say()
            if found:
                say(f"not as expected ({len(found)}):", Ink.BAD)
                for problem in found:
                    say(f"  {problem}")
            else:
                say(f"{_sum(board, running.twin)}: all as expected, nothing lost, nothing twice.", Ink.GOOD)
            if keep:
                await self._stay(running)
            elif not found:
                self.display.facts(_next(mock=running.mock))
        return 1 if found else 0

    async def _play(self, running: Stage, board: Board, story: Mapping[str, Scene]) -> list[str]:
        """Plays all scenes concurrently, to the last outcome. Returns why scenes were broken off."""
        sender = await asyncio.to_thread(
            Sender, running.settings.kafka.client(), max_message_bytes=running.settings.topics.max_message_bytes
        )
        failures: list[str] = []

        async def play(reference: str, scene: Scene) -> None:
            try:
                await scene(Ticket(reference, stage=running, sender=sender, board=board, display=self.display))
            except Unexpected as unexpected:
                failures.append(f"{unexpected}; the rest of this ticket was not played")
            except Exception as error:  # noqa: BLE001 -- one scene's trouble must not hide the others' outcomes
                failures.append(f"{reference}: {type(error).__name__}: {error}")

        async with Reader(stage=running, board=board, display=self.display).reading() as readers:
            whole = asyncio.create_task(_whole([play(*each) for each in story.items()], board, running))
            try:
                watched = {whole, *running.running, *readers}
                ended, _ = await asyncio.wait(watched, timeout=_STORY_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            finally:
                whole.cancel()
                await asyncio.wait({whole})
            for task in ended:
                task.result()
            if not ended:
                failures.append(f"the story was not over after {_STORY_LIMIT:.0f} s")
        return failures

    async def _stay(self, running: Stage) -> None:
        self.display.say()
        self.display.say("Everything is left running until Ctrl-C.", Ink.BOLD)
        self.display.facts(_addresses(running))
        self.staying = True
        ends: set[asyncio.Future[Any]] = {self._asked, *running.running}
        ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in ended:
            each.result()  # a flow that has ended has failed


async def _whole(scenes: Sequence[Coroutine[Any, Any, None]], board: Board, running: Stage) -> None:
    """Play all scenes, then wait for their remaining outcomes, and a little longer for surplus ones."""
    await asyncio.gather(*scenes)

    async def finished() -> bool:
        return board.decided and not running.worker.window.records

    await wait_until(finished, within=_MISSING_LIMIT)  # if not, the board says what is missing
    await asyncio.sleep(_QUIET)


def _messages(board: Board, twin: Twin) -> Counter[str]:
    """How many messages went between us and the supplier, by the board's keys."""
    requests = Counter(call.message_id for call in twin.calls)
    found = Counter({key: requests[message_id(key)] for key in board.steps})
    places: Counter[str] = Counter()
    keys: dict[int, str] = {}
    for delivery in twin.deliveries:
        if delivery.repeat_of is None:
            places[delivery.reference] += 1
            keys[delivery.sequence] = told(delivery.reference, places[delivery.reference])
        found[keys[delivery.repeat_of or delivery.sequence]] += 1
    return found


def _unacknowledged(twin: Twin) -> Iterator[str]:
    """Notifications that the supplier does not count as acknowledged, and why."""
    for delivery in twin.deliveries:
        if delivery.end is not End.ACKNOWLEDGED or delivery.problems:
            why = ", ".join(delivery.problems) or delivery.failure or f"answered with {delivery.answered}"
            yield f"{delivery.reference}: {delivery.kind}: the notification was not acknowledged: {why}"


def _sum(board: Board, twin: Twin) -> str:
    sent = sum(step.record is not None for step in board.steps.values())
    outcomes = [text for step in board.steps.values() for text in step.seen]
    dead, kept = (sum(text.startswith(start) for text in outcomes) for start in (DEAD_LETTER, QUARANTINED))
    told = len(twin.deliveries)
    return (
        f"{sent} records sent, {told} notifications: {board.timeline.total()} events, {len(board.tickets)} tickets, "
        f"{dead} dead letter, {kept} in quarantine"
    )


def _surroundings(running: Stage, folder: Path) -> Iterator[tuple[str, str]]:
    settings = running.settings
    kafka = settings.kafka.bootstrap_servers
    if running.mock:
        yield "Kafka", f"{kafka}, a MOCK cluster inside this process (librdkafka's); KAFKA=host:port takes a real one"
    else:
        yield "Kafka", f"{kafka}, topics {settings.topics.prefix}fault.*"
    yield "registry", f"{settings.registry.url}{', built in' if running.own_registry else ''}"
    yield "supplier", f"{running.twin.url}, a twin behind mutual TLS"
    yield "adapter", f"worker, projector, and a listener for the supplier at {running.listener} (mutual TLS)"
    yield "", f"{running.telemetry}/status, its log is {folder / LOG}"


def _addresses(running: Stage) -> Iterator[tuple[str, str]]:
    """Where everything is, and commands to paste."""
    settings = running.settings
    topics, kafka, registry = settings.topics.names(), settings.kafka.bootstrap_servers, settings.registry.url
    variables = f"ADAPTER_KAFKA__BOOTSTRAP_SERVERS={kafka} ADAPTER_REGISTRY__URL={registry}"
    if settings.topics.prefix:
        variables += f" ADAPTER_TOPICS__PREFIX={settings.topics.prefix}"
    yield "metrics", f"{running.telemetry}/metrics"
    yield "supplier", f"{running.twin.control_url}/twin/tickets, /twin/calls, /twin/faults, /twin/notifications"
    yield "events", f"kcat -b {kafka} -t {topics.events} -s value=avro -r {registry} -C -u"
    yield "", f"kcat -b {kafka} -t {topics.events} -f '%k %h\\n' -C -u   (where kcat was built without Avro)"
    if running.mock:
        # Seen: the Java client finds no topic, franz-go and Sarama no broker, kafka-go and aiokafka no record.
        yield "clients", "of librdkafka, and kafkajs, get on with the mock; for Java, Go, aiokafka KAFKA=host:port"
    else:
        stay = f"{settings.topics.prefix}fault.*"
        yield "topics", f"stay; kafka-topics.sh --bootstrap-server {kafka} --delete --topic '{stay}' deletes them"
    adapter = _adapter()
    yield "settings", f"export {variables}"
    yield "watch", f"{adapter} watch"
    yield "tickets", f"{adapter} tickets --all"
    yield "", f"{adapter} tickets SP-1002"
    yield "send", f"{adapter} send --example AddFaultReport > command.json"
    yield "", f"{adapter} send command.json --wait"
    happens = """-d '{"reference": "SP-1004", "kind": "in-progress"}'"""
    yield "notify", f"curl -s {running.twin.control_url}/twin/notify {happens}"
    lost = """-d '{"kind": "reset", "taken": true}'   (the next answer is lost: send a report)"""
    yield "doubt", f"curl -s {running.twin.control_url}/twin/faults {lost}"


def _adapter() -> str:
    """How to call the command line from where we are."""
    script = Path(sys.argv[0])
    if script.name != "adapter":
        return f"{sys.executable} -m adapter"
    found = os.path.relpath(script)
    return str(script) if found.startswith("..") else found


def _next(*, mock: bool) -> Iterator[tuple[str, str]]:
    yield "next", "make demo KEEP=1             leaves everything running, to look around and send your own commands"
    if mock:
        yield "", "make demo KAFKA=host:port    the same on a real Kafka, with topics of its own"
    yield "", "adapter --help               what else there is; README.md says how to connect a service or the supplier"
