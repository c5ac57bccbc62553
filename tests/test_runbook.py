"""The runbook, as somebody reads it at night: whatever it names exists under that name."""

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from adapter.cli import _parser
from adapter.settings import describe
from adapter.telemetry.metrics import METRICS

DOCS: Final = Path(__file__).parents[1] / "docs"
TEXT: Final = (DOCS / "runbook.md").read_text(encoding="utf-8")
SOURCE: Final = "".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "adapter").rglob("*.py"))
COMMANDS: Final = sorted(set(re.findall(r"`(adapter [^`\n]+)`|-- (adapter [a-z -]+[a-z])", TEXT)))
ELSEWHERE: Final = re.compile(
    r"kubectl|kafka-|kubectl .*|kafka-[a-z-]+\.sh .*|users|POD|helm/fault-adapter/rules/"
    r"|(supplier|listener)-certificate|max\.message\.bytes|cleanup\.policy|retention\.bytes|group\.(consumer\.)?max\.size|partitioner=murmur2_random|__transaction_state|__consumer_offsets|Prepare(Commit|Abort)|find-hanging|fault\.[a-z-]+|__[A-Z_]+|…-ca"
)
"""Names that Kafka, Kubernetes, the topics, a file or a certificate's place have."""


@pytest.mark.parametrize("command", ["".join(found) for found in COMMANDS])
def test_the_commands_are_commands(command: str) -> None:
    written = command.replace("accepted|rejected|repeat", "accepted").replace("--why …", "--why it").replace("…", "x")
    words = shlex.split(written)[1:]
    if words == ["check"]:  # of any role
        words = ["check", "server"]
    _parser(words[0]).parse_args(words)


def test_every_other_name_is_that_of_a_metric_a_setting_a_log_line_or_a_word_of_the_product() -> None:
    names = {name for name in re.findall(r"`([^`\n]+)`", TEXT) if not name.startswith("adapter ")}
    known = {metric.name for metric in METRICS} | {row.variable for row in describe()}
    known |= set(re.findall(r"`([^`]+)`", (DOCS / "logs.md").read_text(encoding="utf-8")))
    known |= set(re.findall(r"[\w-]+", (DOCS / "metrics.md").read_text(encoding="utf-8")))
    known |= set(re.findall(r'"([^"\n]+)"', SOURCE))
    bare = {re.sub(r"\{.*\}$", "", name) for name in names}
    assert {name for name in bare if not ELSEWHERE.fullmatch(name)} - known == set()
