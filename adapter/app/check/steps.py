"""The steps of a check, in order."""

from collections.abc import AsyncGenerator

from adapter.app.check.kafka import kafka_lines, refused_properties
from adapter.app.check.lines import Line, Verdict, problems
from adapter.app.check.own import own_lines, port_line
from adapter.app.check.registry import registry_lines
from adapter.app.check.role import Role, load_settings
from adapter.app.start import load_catalogue
from adapter.core.errors import Stop


async def check(role: Role) -> AsyncGenerator[Line, None]:
    """The lines of the check, each as soon as it is known. If settings are wrong the check ends with them, including
    those that only Kafka's client can judge.
    """
    try:
        settings = load_settings(role)
    except Stop as stop:
        for line in (*problems("settings", stop, "see adapter settings"), *refused_properties()):
            yield line
        return
    yield Line("settings", Verdict.OK, f"complete for the {role}")
    try:
        known = load_catalogue(settings)
    except Stop as stop:
        for line in problems("schemas", stop, "correct the schemas, or unset ADAPTER_SCHEMAS"):
            yield line
        return
    yield port_line("telemetry port", settings.telemetry.host, settings.telemetry.port, "ADAPTER_TELEMETRY__")
    async for line in own_lines(settings, known):
        yield line
    async for line in kafka_lines(settings, role, known):
        yield line
    async for line in registry_lines(settings, known):
        yield line
