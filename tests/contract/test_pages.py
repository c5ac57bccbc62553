"""What the README and the other pages name is there: files, headings, commands, settings, metrics."""

import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from adapter.cli import main
from adapter.settings import describe

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "helm" / "fault-adapter" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SETTINGS = {row.variable for row in describe()}
GROUPS = {variable.rpartition("__")[0] for variable in SETTINGS} | SETTINGS


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def headings(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    found: dict[str, int] = {}
    anchors = set()
    for title in re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = found[plain] = found.get(plain, -1) + 1
        anchors.add(f"{plain}-{count}" if count else plain)
    return anchors


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Every link to something of ours: as written, the file, the anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if not re.match(r"\w+:", target):
            path, _, anchor = target.partition("#")
            yield target, (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    wrong = [
        target
        for target, linked, anchor in links(page)
        if not linked.exists() or (anchor and anchor not in headings(linked))
    ]
    assert wrong == []


def test_whoever_begins_with_the_readme_finds_every_page() -> None:
    found, new = set[Path](), {README}
    while new:
        found |= new
        new = {linked for page in new for _, linked, _ in links(page) if linked in PAGES} - found
    decisions = {page for page in PAGES if page.parent.name == "decisions"}  # linked as a folder
    assert [name(page) for page in PAGES if page not in found | decisions] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_setting_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bADAPTER_[A-Z][A-Z_]*[A-Z]\b", read(page)))
    free = ("ADAPTER_KAFKA__PROPERTIES", "ADAPTER_SUPPLIER__SOAP_ACTIONS", "ADAPTER_SUPPLIER__DOUBT_LIMITS")
    assert sorted(each for each in named - GROUPS if not each.startswith(free)) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_metric_a_page_names_exists(page: Path) -> None:
    known = set(re.findall(r"^\| `(fault_adapter_\w+)`", read(ROOT / "docs" / "metrics.md"), re.MULTILINE))
    suffixes = ("_bucket", "_count", "_sum", "_created")
    named = set(re.findall(r"\bfault_adapter_[a-z_]+[a-z]\b", read(page)))
    assert sorted(each for each in named if each not in known and not each.endswith(suffixes)) == []


def commands(page: Path) -> list[list[str]]:
    """All words after `adapter` in shell blocks and in code spans."""
    text = read(page)
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`((?:\.venv/bin/)?adapter [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()] + spans
    found = []
    for line in lines:
        for part in re.split(r"[|;]|&&|> ", line.partition("  #")[0]):
            words = re.sub(r"^(?:\w+=\S+\s+)*", "", part.strip())
            if re.match(r"(?:\.venv/bin/)?adapter\b", words):
                found.append(shlex.split(words.replace("…", ""))[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_a_page_shows_has_these_options(page: Path) -> None:
    helped: dict[str, str] = {}
    for words in commands(page):
        if not words or words[0].startswith("-"):
            continue
        command = words[:2] if len(words) > 1 and words[1].isalpha() else words[:1]
        key = " ".join(command)
        if key not in helped:
            out = io.StringIO()
            with redirect_stdout(out):
                assert main([*command, "--help"]) == 0, key
            helped[key] = out.getvalue()
        for option in words:
            if option.startswith("--"):
                assert option.partition("=")[0] in helped[key], f"{key}: {option}"
