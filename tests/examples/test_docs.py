"""The documentation runs, shows what it prints, leads nowhere wrong, and says what the code says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.examples.family import run_family
from tests.examples.pages import FENCE, PAGES, ROOT, Step, agrees, name_of, needs_of, on_ports, ports_of, steps_of

RUNNER = Path(__file__).with_name("run_page.py")
LIMIT_SEC = 220
RUNNABLE = [page for page in PAGES if any(not step.needs for step in steps_of(page))]
# Each of them runs twice, whole: in a file, and on servers. Of the longest, that is for `make nightly`.
LONG = {"docs/cli.md"}
CLUSTERED = [
    pytest.param(page, marks=[pytest.mark.slow] if name_of(page) in LONG else [], id=name_of(page))
    for page in PAGES
    if needs_of(page)
]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    run([step for step in steps_of(page) if not step.needs], page, tmp_path, {})


@pytest.mark.parametrize("page", CLUSTERED)
async def test_a_page_does_what_it_says_on_kafka_and_mongodb(
    page: Path, tmp_path: Path, kafka_address: str, kafka_prefix: str, mongo_url: str
) -> None:
    steps = [dataclasses.replace(step, text=at_home(step.text, mongo_url, kafka_prefix)) for step in steps_of(page)]
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka_address, "FLOWKIT_TOPIC_PREFIX": kafka_prefix}
    await asyncio.to_thread(run, steps, page, tmp_path, environment)


def at_home(text: str, mongo_url: str, prefix: str) -> str:
    """The code of a page with the tests' MongoDB, in a database that goes with its topics, instead of the default
    address."""
    ours = urlunsplit(urlsplit(mongo_url)._replace(path=f"/flowkit_test_{prefix.rstrip('.')}"))
    return text.replace("mongodb://localhost:27017/flowkit", ours)


def free_ports(count: int) -> list[int]:
    """So many different ones that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def run(steps: list[Step], page: Path, folder: Path, environment: dict[str, str], limit_sec: float = LIMIT_SEC) -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # not the reader's
    named = ports_of(page)
    steps = on_ports(steps, dict(zip(named, free_ports(len(named)), strict=True)))
    done = run_family(
        [sys.executable, "-W", "error", str(RUNNER)],
        said=json.dumps([name_of(page), [dataclasses.asdict(step) | {"needs": []} for step in steps]]),
        folder=folder,
        environment=ours | environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        limit_sec=limit_sec,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    wrong = [
        f"{name_of(page)}:{step.line} says\n{step.prints}\nand printed\n{printed}"
        for step, printed in zip(steps, answer["printed"], strict=False)
        if step.prints is not None and not agrees(step.prints, printed)
    ]
    assert not wrong, "\n\n".join(wrong) + f"\n\n{answer['error']}\n{done.stderr}"
    assert not answer["error"], f"{answer['error']}\n{done.stderr}"


def test_the_ports_of_a_page_are_free_ones_where_it_is_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- ports: 18000 19000 -->\n```console\n$ serve --port 18000 118000 &\nat 19000\n```\n")
    (step,) = on_ports(steps_of(page), {"18000": 4, "19000": 5})

    assert ports_of(page) == ["18000", "19000"]
    assert (step.text.splitlines()[0], step.prints) == ("$ serve --port 4 118000 &", "at 5")
    assert len(set(free_ports(5))) == 5


def test_a_page_whose_commands_listen_names_the_ports() -> None:
    """Two that run at the same time must not meet on one."""
    listening = re.compile(r"--(?:metrics-)?port (\d+)")
    fixed = {name_of(page): sorted(set(found) - set(ports_of(page))) for page in RUNNABLE
             if (found := [port for step in steps_of(page) for port in listening.findall(step.text)])}  # fmt: skip

    assert {name: ports for name, ports in fixed.items() if ports} == {}
    assert "docs/services.md" in fixed


# What is generated.


def test_what_is_generated_from_the_code_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True,
    text=True,
                          check=False)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


# Links.

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(prose_of(page)) if not leads_somewhere(page, link)]

    assert not broken


def leads_somewhere(page: Path, link: str) -> bool:
    if "://" in link or link.startswith("mailto:"):
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or target.suffix != ".md" or anchor in anchors_of(target))


def prose_of(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text.lower()).strip()) for text in headings}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = set(re.findall(r":\s+(\S+\.md)$", navigation, re.MULTILINE))

    assert {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"} == named


# Figures.


def test_the_figures_of_the_first_page_are_those_of_the_pages_that_it_names() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = [row for row in readme.splitlines() if row.startswith("|") and "**" in row]
    unknown = []
    for row in rows:
        pages = [(ROOT / path.partition("#")[0]).read_text() for path in LINK.findall(row)]
        for figure in re.findall(r"\*\*([\d.,]+)[^*]*\*\*", row):
            if not any(re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d])", page) for page in pages):
                unknown.append((figure, row))

    assert len(rows) == 5
    assert not unknown
