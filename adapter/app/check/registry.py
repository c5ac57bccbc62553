"""What a role needs of the schema registry: our schemas, and a clock that agrees with ours."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Final

from adapter.app.check.lines import Line, Verdict, problems
from adapter.catalogue import Catalogue
from adapter.core.avro import SubjectStrategy
from adapter.core.errors import Stop, Unavailable
from adapter.settings import Bus
from adapter.transport.registry import LEVEL, TO_REGISTER, HttpRegistry, open_registry

SKEW: Final = timedelta(seconds=5)


async def registry_lines(settings: Bus, known: Catalogue) -> AsyncIterator[Line]:
    try:
        registry = open_registry(settings.registry)
    except Stop as stop:
        for line in problems("registry", stop, "see adapter settings"):
            yield line
        return
    try:
        async with registry:
            async for line in _schemas(settings, known, registry):
                yield line
    except Unavailable as error:
        yield Line("registry", Verdict.FAILED, str(error), "look at ADAPTER_REGISTRY__URL, __CREDENTIALS and __CA")
    except Stop as stop:
        for line in problems("registry", stop, "ask whoever runs the registry"):
            yield line


async def _schemas(settings: Bus, known: Catalogue, registry: HttpRegistry) -> AsyncIterator[Line]:
    """Raises Stop, Unavailable."""
    topics = settings.topics.names()
    strategy = settings.registry.subject_strategy
    subjects = known.subjects(strategy, asdict(topics))
    there, missing = 0, []
    for subject, schema in subjects:
        if await registry.identifier(subject, schema.text) is not None:
            there += 1
        elif await registry.compatible(subject, schema.text):
            missing.append(subject)
        else:
            fix = "somebody has registered another schema there: compare it with adapter schemas show"
            yield Line("registry", Verdict.FAILED, f"{subject}: holds versions ours does not fit", fix)
        level = await registry.compatibility(subject)
        if strategy is not SubjectStrategy.TOPIC and level not in {None, LEVEL}:
            fix = f"adapter schemas register sets {LEVEL}"
            yield Line("registry", Verdict.WARNING, f"{subject}: compatibility is {level}", fix)
    if there == len(subjects):
        yield Line("registry", Verdict.OK, f"has our {there} schemas")
    if missing:
        said = f"{len(missing)} of {len(subjects)} schemas are not registered, such as {missing[0]}"
        yield Line("registry", Verdict.FAILED, said, TO_REGISTER)
    yield clock_line(registry.time, datetime.now(UTC))


def clock_line(theirs: datetime | None, ours: datetime) -> Line:
    if theirs is None:
        return Line("clock", Verdict.OK, "the registry does not tell its time")
    skew = abs(ours - theirs)
    if skew > SKEW:
        said = f"differs from the registry's by {skew.total_seconds():.0f} s"
        return Line("clock", Verdict.WARNING, said, "synchronise both (NTP): deadlines and order rest on it")
    return Line("clock", Verdict.OK, "agrees with the registry's")
