"""What every command has in common: help, wrong usage, exit codes."""

import asyncio
import io
import json
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from adapter import __version__
from adapter.cli import main
from adapter.settings import describe, markdown
from tests.support.processes import Processes
from tests.support.wait import PATIENCE

COMMANDS = (
    *("worker", "server", "projector", "run", "twin", "demo", "topics", "schemas", "settings", "send"),
    *("check", "call", "watch", "tickets", "doubt", "stuck", "quarantine", "dead-letters", "translate"),
)


def test_help_names_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in shown
    for code in (0, 1, 2, 3, 4, 130):
        assert f"\n  {code} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "adapter " in capsys.readouterr().out.partition("examples:")[2]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fault-adapter {__version__}\n"


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["topics"], ["topics", "destroy"], ["schemas"], ["settings", "--json", "--markdown"]]
)
def test_wrong_usage_says_what_there_is(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: adapter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["worker"], "ADAPTER_SUPPLIER__BUYER_IDENTIFIER"),
        (["projector"], "ADAPTER_REGISTRY__URL"),
        (["run"], "ADAPTER_SUPPLIER__BASE_URL"),
        (["topics", "plan"], "ADAPTER_KAFKA__BOOTSTRAP_SERVERS"),
        (["schemas", "register"], "ADAPTER_REGISTRY__URL"),
        (["schemas", "check", "--registry"], "ADAPTER_REGISTRY__URL"),
        (["send", "-"], "ADAPTER_REGISTRY__URL"),
    ],
)
def test_settings_that_are_missing_are_told(words: list[str], missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"adapter: {missing}: is missing") for line in lines)


@pytest.mark.parametrize(
    "words",
    [
        ["tickets", "SP-\udce9"],
        ["watch", "--reference", "SP-1", "--reference", "SP-\udce9"],
        ["watch", "--kind", "SP-\udce9"],
        ["doubt", "settle", "SP-\udce9", "accepted", "--why", "told by phone"],
        ["doubt", "settle", "C-1", "accepted", "--why", "SP-\udce9"],
        ["send", "--example", "SP-\udce9"],
        ["stuck", "--worker", "SP-\udce9"],
        ["twin", "notify", "-", "--to", "SP-\udce9"],
        ["demo", "--kafka", "SP-\udce9"],
    ],
)
def test_an_argument_that_is_no_text_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == "adapter: SP-\\xe9: is not UTF-8 text\n"


def test_the_name_of_a_file_may_be_any_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "na\udcefve.json"]) == 2
    assert "is not UTF-8 text" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:port", "http://127.0.0.1:99999", "http://:9464", "http://127.0.0.1/é", "http://127.0.0.1/a b"],
)
def test_what_is_no_address_of_a_worker_is_wrong_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stuck", "--worker", url]) == 2
    assert capsys.readouterr().err == (
        f"adapter: --worker {url}: is not a web address; write for example http://127.0.0.1:9464\n"
    )


@pytest.mark.parametrize("words", [["quarantine", "again"], ["dead-letters", "again", "0/1", "--since", "1h"]])
def test_words_that_are_wrong_are_told_before_settings_that_are_missing(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("adapter: again: name records")


def test_where_something_else_than_http_is_spoken_no_worker_answers(capsys: pytest.CaptureFixture[str]) -> None:
    class Mail(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"220 mail at your service\r\n")
            self.request.recv(4096)

    with socketserver.TCPServer(("127.0.0.1", 0), Mail) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert main(["stuck", "--worker", url]) == 1
        answering.join()
    assert capsys.readouterr().err.startswith(f"adapter: {url}/status: ")


def test_settings_as_text_json_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    text = capsys.readouterr().out
    assert all(row.variable in text for row in describe())
    assert main(["settings", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["variable"] for row in rows] == [row.variable for row in describe()]
    assert main(["settings", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown()


def test_what_a_terminal_has_no_letters_for_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding="latin-1")
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(["settings"]) == 0
    assert b"OTEL_\\u2026" in written.getvalue()


@pytest.mark.parametrize("word", ["settings", "--help"])
def test_a_reader_that_goes_away_is_no_accident(word: str, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    with errors.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "adapter", word], stdout=subprocess.PIPE, stderr=stream)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) in {0, 1}
    assert errors.read_text() == ""


@pytest.mark.parametrize("word", ["settings", "--help", "--version"])
def test_an_output_that_takes_no_more_is_told_in_a_line(word: str) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "adapter", word], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, b"adapter: standard output: No space left on device\n")


def test_an_output_that_is_closed_is_told_in_a_line() -> None:
    ended = subprocess.run(f"{sys.executable} -m adapter settings >&-", shell=True, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (2, b"adapter: standard output is closed\n")


ALL_OPEN = """
import os, sys
from adapter import cli
cli._parser = lambda chosen: print([os.readlink(f"/proc/self/fd/{number}") for number in range(3)])
cli.main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at descriptors as Linux shows them")
def test_no_socket_takes_the_place_of_an_input_or_error_output_that_is_closed() -> None:
    script = shlex.quote(ALL_OPEN)
    ended = subprocess.run(f"{sys.executable} -c {script} <&- 2>&- | cat", shell=True, capture_output=True, check=False)
    assert b"['/dev/null', 'pipe:[" in ended.stdout
    assert ended.stdout.endswith(b"]', '/dev/null']\n")


LATE = """
import signal, sys
from adapter import cli
cli._parser = lambda chosen: signal.raise_signal(signal.SIGINT)
sys.exit(cli.main())
"""


def test_an_interrupt_while_a_command_is_imported_is_no_accident() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"")


IN_A_CALLBACK = """
import signal, sys
from adapter import cli
from adapter.transport.kafka.client import Edge, Follower
from adapter.transport.kafka.mock import MockCluster
def follow(_chosen):
    cluster = MockCluster()
    cluster.create(["x"])
    down = lambda _: signal.raise_signal(signal.SIGINT)
    follower = Follower({"bootstrap.servers": cluster.bootstrap}, "x", start=Edge.FIRST, down=down)
    cluster.close()
    while True:
        list(follower.read(float("inf")))
cli._parser = follow
sys.exit(cli.main())
"""


def test_an_interrupt_in_the_middle_of_a_callback_of_kafkas_client_is_no_accident() -> None:
    ended = subprocess.run([sys.executable, "-c", IN_A_CALLBACK], stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"")


async def test_an_interrupt_ends_a_command_that_waits_for_a_cluster(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        env = {"ADAPTER_KAFKA__BOOTSTRAP_SERVERS": address, "ADAPTER_REGISTRY__URL": "http://127.0.0.1:1"}
        process = processes.adapter("watch", env=env)
        client, _ = await asyncio.to_thread(silent.accept)
        with client:
            began = time.monotonic()
            process.send(signal.SIGINT)
            assert await process.ended() == 130
            assert time.monotonic() - began < 10  # the cluster is waited for longer
    assert process.output == ""
