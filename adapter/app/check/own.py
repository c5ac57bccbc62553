"""What one role needs of its machine and of the supplier: ports, certificates, folders, a handshake."""

import errno
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from adapter.app.check.lines import LIMIT, Line, Verdict, problems
from adapter.app.server import server_tls
from adapter.app.start import base_url
from adapter.catalogue import Catalogue
from adapter.core.errors import Stop, Unavailable
from adapter.server.admission import allowed
from adapter.settings import Projecting, Receiving, Settings
from adapter.transport import probe
from adapter.transport.address import endpoint, parsed
from adapter.transport.failures import system_words
from adapter.transport.tls import TlsFiles, client_context
from adapter.transport.way import Proxy, proxy

SOON: Final = timedelta(days=30)
"""A certificate that expires within this is reported."""
_ROOM: Final = 1024**2
"""Bytes for which there must be room where a role writes."""


async def own_lines(settings: Receiving | Projecting, known: Catalogue) -> AsyncIterator[Line]:
    """The checks that concern this role alone."""
    match settings:
        case Settings():
            async for line in _supplier(settings, known):
                yield line
            yield _store(settings.worker.store, "ADAPTER_WORKER__STORE", "none: a temporary folder is used")
        case Receiving():
            for line in _listener(settings):
                yield line
        case Projecting():
            said = "none: the tickets are read at every start"
            yield _store(settings.projector.store, "ADAPTER_PROJECTOR__STORE", said)


def port_line(subject: str, host: str, port: int, section: str) -> Line:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family, reuse_port=False):
            pass
    except OSError as error:
        said = f"{host}:{port}: {system_words(error) or error}"
        if error.errno == errno.EADDRINUSE:
            fix = f"ignore this if the role is already running here; otherwise set {section}PORT to another port"
            return Line(subject, Verdict.WARNING, said, fix)
        fix = f"set {section}HOST to an address of this machine and {section}PORT to a port that this user may bind"
        return Line(subject, Verdict.FAILED, said, fix)
    return Line(subject, Verdict.OK, f"{host}:{port} is free")


async def _supplier(settings: Settings, known: Catalogue) -> AsyncIterator[Line]:
    supplier, subject = settings.supplier, "supplier certificate"
    files = TlsFiles(supplier.tls.certificate, supplier.tls.key, supplier.tls.ca)
    try:
        context, _ = client_context(files)
    except Stop as stop:
        for line in problems(subject, stop):
            yield line
        return
    if files.certificate is None:
        yield Line(
            subject, Verdict.WARNING, "none", "the supplier asks for one: set ADAPTER_SUPPLIER__TLS__CERTIFICATE"
        )
    else:
        for line in _file(subject, files.certificate, "client"):
            yield line
    try:
        url = parsed("ADAPTER_SUPPLIER__BASE_URL", base_url(settings, known))
        through = proxy(supplier.proxy.url, supplier.proxy.credentials) if supplier.proxy.url else None
    except Stop as stop:
        for line in problems("supplier", stop):
            yield line
        return
    yield await _greeted(*endpoint(url), context if url.scheme == "https" else None, through)


async def _greeted(host: str, port: int, context: ssl.SSLContext | None, through: Proxy | None) -> Line:
    at = f"{host}:{port}" + (f" through {through.host}" if through else "")
    try:
        greeting = await probe.greet(host, port, context, limit=LIMIT, proxy=through)
    except Unavailable as error:
        fix = (
            "check the address, the firewall, the proxy and ADAPTER_SUPPLIER__TLS__CA; the supplier must trust our "
            "certificate, and know its issuer unless the file of the certificate holds that too"
        )
        return Line("supplier", Verdict.FAILED, f"{at}: {error}", fix)
    if greeting is None:
        return Line("supplier", Verdict.WARNING, f"{at}: reached, without encryption", "write https:// for production")
    said = f"{at}: {greeting.version}, {greeting.peer.subject}, until {greeting.peer.not_after:%Y-%m-%d}"
    return Line("supplier", Verdict.OK, said)


def _listener(settings: Receiving) -> Iterator[Line]:
    server, subject = settings.server, "listener certificate"
    yield port_line("listener port", server.host, server.port, "ADAPTER_SERVER__")
    try:
        tls = server_tls(settings)
    except Stop as stop:
        yield from problems(subject, stop)
    else:
        if tls is None or server.tls.certificate is None:
            fix = "only behind a proxy that ends TLS (ADAPTER_SERVER__TRUSTED_PROXIES), or for a test"
            yield Line(subject, Verdict.WARNING, "none: it listens without TLS", fix)
        else:
            yield from _file(subject, server.tls.certificate, "server")
    yield from _callers(settings)
    if server.spool.path is None:
        yield Line("spool", Verdict.OK, "none: the supplier gets 503 while Kafka is away")
        return
    try:
        is_folder = server.spool.path.is_dir()
    except OSError as error:
        yield _closed("spool", server.spool.path, error)
        return
    if is_folder:
        yield Line("spool", Verdict.FAILED, f"{server.spool.path} is a folder", "name a file in it")
    else:
        yield _writable("spool", server.spool.path.parent, "make it, for the user the process runs as")


def _callers(settings: Receiving) -> Iterator[Line]:
    server = settings.server
    try:
        allowed(server.allowed_subjects)
    except Stop as stop:
        yield from problems("callers", stop)
        return
    if server.allowed_subjects or server.allowed_networks:
        said = f"{len(server.allowed_subjects)} subjects, {len(server.allowed_networks)} networks"
        yield Line("callers", Verdict.OK, said)
    else:
        fix = "set ADAPTER_SERVER__ALLOWED_SUBJECTS or ADAPTER_SERVER__ALLOWED_NETWORKS"
        said = "anyone at all" if server.allow_plaintext else "anyone with a certificate of the authorities"
        yield Line("callers", Verdict.WARNING, said, fix)


def _store(folder: Path | None, setting: str, without: str) -> Line:
    if folder is None:
        return Line("store", Verdict.OK, without)
    try:
        place = _existing(folder)
    except OSError as error:
        return _closed("store", folder, error)
    return _writable("store", place, f"name in {setting} a folder that the user the process runs as can make or write")


def _file(subject: str, path: Path, usage: str) -> Iterator[Line]:
    """Whether a usable certificate has the right purpose, a complete chain and enough time left."""
    seen = probe.look(path)
    left = seen.not_after - datetime.now(UTC)
    said = f"{seen.subject}, of {seen.issuer}, until {seen.not_after:%Y-%m-%d}"
    if usage not in seen.usages:
        fix = f"have one issued with the extended key usage {usage}Auth"
        yield Line(subject, Verdict.FAILED, f"{said}: is not for use as a {usage}'s", fix)
    elif not seen.whole:
        fix = "put the certificates into the file in order, each signed by the next"
        yield Line(subject, Verdict.FAILED, f"{said}: the chain is broken", fix)
    elif left < SOON:
        fix = "renew it; a new file is taken up without a restart"
        yield Line(subject, Verdict.WARNING, f"{said}: expires in {left.days} days", fix)
    elif usage == "server":
        yield Line(subject, Verdict.OK, f"{said}, for {', '.join(seen.names) or 'no host name'}")
    else:
        yield Line(subject, Verdict.OK, said)


def _closed(subject: str, path: Path, error: OSError) -> Line:
    """The line for a path that can't be accessed."""
    fix = "name one that the user the process runs as can reach"
    return Line(subject, Verdict.FAILED, f"{path}: {error.strerror or error}", fix)


def _writable(subject: str, folder: Path, fix: str) -> Line:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # without a name, so that nothing is left behind
            file.write(bytes(_ROOM))
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return Line(subject, Verdict.FAILED, f"{folder} is not a folder that can be written", fix)
    except OSError as error:
        fix = "make room on that disk, or look at what is wrong with it; a role that runs then goes on by itself"
        return Line(subject, Verdict.FAILED, f"{folder}: {error.strerror or error}", fix)
    return Line(subject, Verdict.OK, f"{folder} can be written")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest existing one above it. Raises OSError if that can't be accessed."""
    for place in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):  # `exists` would, from Python 3.14 on, suppress them all
            place.stat()
            return place
    return folder
