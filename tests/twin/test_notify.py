"""`adapter twin notify`: any file to any address, and what is thought of the answer."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from adapter.cli import main
from adapter.twin.settings import TlsFiles
from tests.support.certificates import Trials
from tests.twin.receiver import Got, answer, receiver

SAMPLES = sorted((Path(__file__).parents[1] / "golden" / "cityfibre" / "notifications").glob("*/notification.xml"))


async def notify(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, ["twin", "notify", *map(str, arguments)])


async def test_files_are_posted_as_they_are_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    async with receiver() as receiving:
        assert await notify(*SAMPLES, "--to", f"{receiving.url}/notifyAmended", "--soap-action", "urn:x") == 0
    assert [got.body for got in receiving.came] == [sample.read_bytes() for sample in SAMPLES]
    assert {(got.path, got.soap_action) for got in receiving.came} == {("/hook/notifyAmended", '"urn:x"')}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SAMPLES)
    assert all(line.endswith("acknowledged") for line in lines)


async def test_another_answer_is_shown_with_what_is_wrong_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    async def answering(got: Got) -> web.Response:
        if len(receiving.came) == 1:
            return answer(got, id="another")
        return web.Response(status=400, text="what\x1b[2J", content_type="text/plain")

    async with receiver(answering) as receiving:
        assert await notify(*SAMPLES[:2], "--to", receiving.url) == 4
    shown = capsys.readouterr().out
    assert "    messageId: not the notification's" in shown
    assert "    HTTP status 400 instead of 200" in shown
    assert "    what\N{REPLACEMENT CHARACTER}[2J" in shown


async def test_no_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with receiver() as receiving:
        gone = receiving.url
    assert await notify(SAMPLES[0], "--to", gone) == 1
    assert "no connection" in capsys.readouterr().out


async def test_over_mutual_tls(trials: Trials, capsys: pytest.CaptureFixture[str]) -> None:
    good = trials.good
    tls = TlsFiles(good.server_certificate, good.server_key, good.ca).context(ssl.PROTOCOL_TLS_SERVER)
    own = ("--certificate", good.client_certificate, "--key", good.client_key, "--ca", good.ca)
    async with receiver(tls=tls) as receiving:
        assert await notify(SAMPLES[0], "--to", receiving.url, *own) == 0
        assert await notify(SAMPLES[0], "--to", receiving.url, "--ca", good.ca) == 2
        assert await notify(SAMPLES[0], "--to", receiving.url) == 1
        assert "TLS failed: self-signed certificate in certificate chain" in capsys.readouterr().out
    assert len(receiving.came) == 1


def test_everything_wrong_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["absent.xml", "--to", "ftp://x", "--key", "k", "--soap-action", "a\nb"]
    assert main(["twin", "notify", *wrong]) == 2
    told = capsys.readouterr().err
    for part in ("absent.xml: No such file", "--to:", "--certificate, --key and --ca", "--soap-action:"):
        assert part in told
    assert main(["twin", "notify", "x"]) == 2


def test_a_closed_standard_input_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["twin", "notify", "-", "--to", "http://localhost:1/"]) == 2
    assert capsys.readouterr().err == "adapter: standard input: is closed\n"
