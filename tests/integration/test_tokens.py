"""Tokens instead of a password (OAUTHBEARER): librdkafka gets them by its properties alone from an endpoint, which may
fail."""

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.broker import Cluster
from tests.support.certificates import Trials
from tests.support.estate import add, unique
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import eventually

LIFE: Final = 6
"""Seconds. A client renews a token when four fifths of that are over."""
DOOR: Final = free_port()
FAILED: Final = 3
"""Exit code of a check that has found a fault."""


class Endpoint:
    """Gives tokens that the broker takes: unsigned ones."""

    def __init__(self, trials: Trials) -> None:
        self.given = 0
        self._pair = trials.good
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}/token"

    async def open(self) -> web.AppRunner:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pair.server_certificate, self._pair.server_key)
        app = web.Application()
        app.router.add_post("/token", self._give)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port, ssl_context=context).start()
        return runner

    async def _give(self, request: web.Request) -> web.Response:
        if base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")) != b"adapter:s3cret":
            return web.json_response({"error": "invalid_client"}, status=401)
        self.given += 1
        now = int(time.time())
        token = f"{_part(alg='none')}.{_part(sub='adapter', iat=now, exp=now + LIFE)}."
        return web.json_response({"access_token": token, "token_type": "bearer", "expires_in": LIFE})


def _part(**claims: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


@pytest.fixture(scope="module")
def guarded(kafka_of_file: Callable[..., Cluster]) -> Cluster:
    """Has a listener for those with tokens, and ends connections whose token has expired."""
    return kafka_of_file(
        doors={"TOKENS": (DOOR, DOOR)},
        properties={
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TOKENS:SASL_PLAINTEXT",
            "listener.name.tokens.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.tokens.oauthbearer.sasl.jaas.config": (
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
                'unsecuredLoginStringClaim_sub="kafka";'
            ),
            "listener.name.tokens.oauthbearer.connections.max.reauth.ms": 3_600_000,
        },
    )


@pytest_asyncio.fixture
async def rig(guarded: Cluster) -> AsyncIterator[Rig]:
    async with open_rig(guarded.bootstrap, partitions=1) as opened:
        yield opened


@pytest_asyncio.fixture
async def endpoint(trials: Trials) -> AsyncIterator[Endpoint]:
    opened = Endpoint(trials)
    runner = await opened.open()
    yield opened
    await runner.cleanup()


@pytest.fixture
def tokens(endpoint: Endpoint, trials: Trials, tmp_path: Path) -> dict[str, str]:
    """Settings that have clients get tokens there."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    return {
        "KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{DOOR}",
        "KAFKA__PROPERTIES__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA__PROPERTIES__SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA__PROPERTIES__SASL_OAUTHBEARER_METHOD": "oidc",
        "KAFKA__PROPERTIES__SASL_OAUTHBEARER_CLIENT_ID": "adapter",
        "KAFKA__PROPERTIES__SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": endpoint.url,
        "KAFKA__PROPERTIES__HTTPS_CA_LOCATION": str(trials.good.ca),
        "KAFKA__PROPERTIES_FILES__SASL_OAUTHBEARER_CLIENT_SECRET": str(secret),
    }


async def test_a_worker_keeps_its_partitions_while_its_tokens_expire(
    rig: Rig, endpoint: Endpoint, tokens: dict[str, str]
) -> None:
    async with rig.worker(**tokens) as worker:
        rig.estate.send(first := add(unique()))
        await rig.estate.final(first)
        at_first = endpoint.given
        await eventually(lambda: endpoint.given > 3 * at_first, what="new tokens for every client")
        rig.estate.send(second := add(unique()))
        await rig.estate.final(second)
        assert worker.lines.getvalue().count("partitions assigned") == 1
        assert "partitions lost" not in worker.lines.getvalue()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SASL_OAUTHBEARER_CLIENT_ID", "stranger", 'token: {"error": "invalid_client"}'),
        ("HTTPS_CA_LOCATION", None, "; set ADAPTER_KAFKA__PROPERTIES__HTTPS_CA_LOCATION to a PEM file of the authorit"),
    ],
    ids=["refuses us", "has a certificate of an unknown authority"],
)
async def test_a_check_says_what_is_wrong_with_an_endpoint_that(
    rig: Rig, tokens: dict[str, str], processes: Processes, *, name: str, value: str | None, says: str
) -> None:
    changed = tokens | {f"KAFKA__PROPERTIES__{name}": value}
    settings = {name: value for name, value in changed.items() if value is not None}
    check = processes.adapter("check", "worker", env=rig.environment(**settings))
    assert await check.ended() == FAILED
    (line,) = [line for line in check.output.splitlines() if line.startswith("failed   Kafka")]
    assert "Failed to acquire SASL OAUTHBEARER token: " in line
    assert says in line
