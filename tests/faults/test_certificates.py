"""Certificates replaced on disk as Kubernetes does it, under load, in both directions: only the metrics notice."""

import asyncio
import re
import shutil
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from cryptography import x509

from adapter.twin.certificates import Pair
from tests.server.conftest import notification, serving
from tests.support import estate as say
from tests.support.certificates import Trials
from tests.support.estate import unique
from tests.support.rig import open_rig
from tests.support.supplier import Exchange, server_context, supplier
from tests.support.wait import eventually

GOLDEN: Final = Path(__file__).parents[1] / "golden/cityfibre"


class Mount:
    """A volume of a Secret: its files are links through `..data`, which is replaced in one step."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._numbers = count()
        self.pair = Pair(folder / "tls.crt", folder / "tls.key")

    def put(self, certificate: Path, key: Path) -> None:
        data = self._folder / f"..{next(self._numbers)}"
        data.mkdir()
        for link, source in ((self.pair.certificate, certificate), (self.pair.key, key)):
            shutil.copy(source, data / link.name)
            if not link.is_symlink():
                link.symlink_to(Path("..data") / link.name)
        fresh = self._folder / "..data_tmp"
        fresh.symlink_to(data.name)
        fresh.rename(self._folder / "..data")


@dataclass(slots=True)
class Load:
    """Posts over kept connections until told to stop; a connection that ends without having said so is an error."""

    port: int
    tls: ssl.SSLContext
    statuses: set[int] = field(default_factory=set)
    served: dict[int, int] = field(default_factory=dict)
    """By lane, the serial number of the certificate its present connection was made with."""
    stopping: bool = False

    async def lane(self, lane: int) -> None:
        messages = count()
        while not self.stopping:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self.served[lane] = x509.load_der_x509_certificate(shown).serial_number
            last = False
            while not last and not self.stopping:
                body = notification(f"C-{lane}", message=f"M-{next(messages)}")
                head = f"POST /notify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = re.search(r"content-length: (\d+)", answer)
                assert length is not None
                await reader.readexactly(int(length[1]))
                self.statuses.add(int(answer.split()[1]))
                last = "connection: close" in answer
            writer.close()


async def test_the_listeners_pair_is_replaced_under_load(kafka: str, trials: Trials, tmp_path: Path) -> None:
    authority, good = trials.authority, trials.good
    mount = Mount(tmp_path / "listener")
    pairs = [authority.server(f"listener-{number}") for number in range(3)]
    mount.put(pairs[0].certificate, pairs[0].key)
    tls = ssl.create_default_context(cafile=good.ca)
    tls.load_cert_chain(good.client_certificate, good.client_key)
    settings = {
        "SERVER__ALLOW_PLAINTEXT": "false",
        "SERVER__TLS__CERTIFICATE": str(mount.pair.certificate),
        "SERVER__TLS__KEY": str(mount.pair.key),
        "SERVER__TLS__CA": str(good.ca),
    }
    async with open_rig(kafka) as rig, serving(rig, **settings) as server:
        load = Load(server.port, tls)
        lanes = [asyncio.ensure_future(load.lane(number)) for number in range(8)]

        def everywhere(pair: Pair) -> Callable[[], bool]:
            return lambda: len(load.served) == 8 and set(load.served.values()) == {serial(pair)}

        def told() -> str:
            return server.metrics.exposition("text/plain")[0].decode()

        await eventually(everywhere(pairs[0]))
        mount.put(pairs[1].certificate, pairs[1].key)
        await eventually(everywhere(pairs[1]), what="the new pair on every connection")
        mount.put(pairs[2].certificate, pairs[1].key)  # which is no pair
        await eventually(lambda: 'certificates_refused{direction="listener"} 1.0' in told())
        assert "new certificates are not used" in server.lines.getvalue()
        await eventually(everywhere(pairs[1]), what="the old pair going on")
        mount.put(pairs[2].certificate, pairs[2].key)
        await eventually(everywhere(pairs[2]), what="the mended pair in use")
        assert 'certificates_refused{direction="listener"} 0.0' in told()
        assert ends(told(), "listener-certificate") == expiry(pairs[2])
        load.stopping = True
        await asyncio.gather(*lanes)  # no connection was cut: that would have been raised
    assert load.statuses == {200}


async def test_the_suppliers_client_pair_is_replaced_under_load(kafka: str, trials: Trials, tmp_path: Path) -> None:
    reply = (GOLDEN / "RequestFaultReportUpdate/minimal/reply.xml").read_bytes()
    mount = Mount(tmp_path / "client")
    pairs = [trials.authority.client(f"rotated-{number}") for number in range(3)]
    mount.put(pairs[0].certificate, pairs[0].key)
    shown: list[int] = []

    async def script(exchange: Exchange) -> None:
        assert exchange.certificate is not None
        number = x509.load_der_x509_certificate(exchange.certificate).serial_number
        while True:
            await exchange.request()
            shown.append(number)
            await exchange.reply(reply, headers="Content-Type: text/xml\r\n")

    async with open_rig(kafka) as rig, supplier(script, tls=server_context(trials.good)) as server:
        settings = {
            "SUPPLIER__BASE_URL": server.url,
            "SUPPLIER__ALLOW_PLAINTEXT": "false",
            "SUPPLIER__TLS__CERTIFICATE": str(mount.pair.certificate),
            "SUPPLIER__TLS__KEY": str(mount.pair.key),
            "SUPPLIER__TLS__CA": str(trials.good.ca),
        }
        async with rig.worker(**settings) as worker:
            sent: list[say.Command] = []

            async def feed() -> None:
                while True:
                    batch = [say.ask_update(unique(), maintainerFaultReference="M-1") for _ in range(8)]
                    rig.estate.put_all([(rig.estate.encode(each), each.key.encode()) for each in batch])
                    sent.extend(batch)
                    await asyncio.sleep(0.1)

            feeding = asyncio.ensure_future(feed())

            async def shows(pair: Pair) -> None:
                await eventually(lambda: set(shown[-50:]) == {serial(pair)}, what="another pair")

            await shows(pairs[0])
            mount.put(pairs[1].certificate, pairs[1].key)
            await shows(pairs[1])
            mount.put(pairs[2].certificate, pairs[1].key)  # which is no pair
            await eventually(lambda: worker.metric("certificates_refused", direction="supplier"))
            before = len(shown)
            await eventually(lambda: len(shown) > before + 50)
            assert set(shown[before:]) == {serial(pairs[1])}
            mount.put(pairs[2].certificate, pairs[2].key)
            await shows(pairs[2])
            assert not worker.metric("certificates_refused", direction="supplier")
            feeding.cancel()
            await rig.estate.all_final(sent)
            assert {each.type for each in rig.estate.events} == {"FaultReportUpdateRequested"}
            assert {each.record["attempts"] for each in rig.estate.events} == {1}
            text = worker.metrics.exposition("text/plain")[0].decode()
            assert ends(text, "supplier-certificate") == expiry(pairs[2])


def serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def expiry(pair: Pair) -> float:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc.timestamp()


def ends(text: str, certificate: str) -> float:
    """What the metrics say of the end of that certificate."""
    found = re.search(rf'certificate_not_after_timestamp_seconds{{certificate="{certificate}"}} (\S+)', text)
    assert found is not None
    return float(found[1])
