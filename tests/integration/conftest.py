"""All but the workers, as most tests here want it, and what the supplier was asked."""

from collections.abc import AsyncIterator

import pytest_asyncio
from lxml import etree

from tests.support.estate import Command
from tests.support.rig import Heard, Rig, open_rig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(kafka: str) -> AsyncIterator[Rig]:
    async with open_rig(kafka) as opened:
        yield opened


def requests(rig: Rig, command: Command) -> list[tuple[Heard, etree._Element]]:
    """What the supplier was asked for that command, with the SOAP body's element."""
    found = []
    for heard in rig.twin.heard:
        element = etree.fromstring(heard.body).find("{http://schemas.xmlsoap.org/soap/envelope/}Body")
        assert element is not None
        if text(element[0], "addressKey") == command.key or text(element[0], "buyerFaultReference") == command.key:
            found.append((heard, element[0]))
    return found


def text(element: etree._Element, name: str) -> str | None:
    found = element.xpath(f".//*[local-name()='{name}']")
    assert isinstance(found, list)
    return found[0].text if found and isinstance(found[0], etree._Element) else None
