"""The documentation: links lead somewhere, references are up to date, examples parse and name what exists."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lemond_adapter.service.config import load_config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def tracked() -> list[Path]:
    """All Markdown of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / line for line in listed.stdout.splitlines()]
    assert len(files) > 20
    return [file for file in files if file.exists()]


def prose(file: Path) -> str:
    """Without code, where brackets are no links."""
    text = _FENCE.sub("", file.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(file: Path) -> set[str]:
    """The ids that GitHub gives headings."""
    found: Counter[str] = Counter()
    ids = set()
    text = _FENCE.sub("", file.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#{1,6} (.+?) *#*$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        ids.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return ids


@pytest.mark.parametrize("file", tracked(), ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    for groups in _LINK.findall(prose(file)):
        link = next(group for group in groups if group)
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.is_relative_to(ROOT), f"{link}: leads out of the repository"
        assert target.exists(), f"{link}: there is no {target.relative_to(ROOT)}"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading; there are {sorted(anchors(target))}"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text() + (DOCS / "adr" / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        if page.name != "README.md":
            assert page.name in index, f"{page.relative_to(ROOT)} is in no index"


def test_references_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def examples(*languages: str) -> Iterator[tuple[str, str]]:
    for file in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        for language, text in _FENCE.findall(file.read_text(encoding="utf-8")):
            if language in languages:
                yield str(file.relative_to(ROOT)), text


def test_python_examples_parse_and_import_what_exists() -> None:
    found = list(examples("python"))
    assert len(found) >= 6
    for where, text in found:
        # `async with` at the top is how a reader's own function begins.
        tree = ast.parse("async def example():\n" + "".join(f"    {line}\n" for line in text.splitlines()))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lemond_adapter"):
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name), f"{where}: {node.module} has no {name.name}"


def test_toml_examples_are_accepted(tmp_path: Path) -> None:
    found = [(where, text) for where, text in examples("toml") if "[project]" not in text]
    assert len(found) >= 2
    for index, (_, text) in enumerate(found):
        tomllib.loads(text)
        file = tmp_path / f"{index}.toml"
        file.write_text(text)
        load_config(file)


def test_commands_in_examples_exist() -> None:
    """Each `lemond-adapter ...` line has a command and options that the command line knows."""
    lines = [line for _, text in examples("sh", "console") for line in text.replace("\\\n", " ").splitlines()]
    calls = [
        found[1]
        for line in lines
        if (found := re.search(r"(?:^|[\s/])lemond-adapter( [^|#>]*)?$", line.split("#")[0].rstrip()))
    ]
    assert len(calls) > 10
    helps: dict[tuple[str, ...], str] = {}
    for call in calls:
        words = (call or "").split()
        command = tuple(word for word in words[:2] if word.isalpha())[: 2 if words[:1] == ["drivers"] else 1]
        if command not in helps:
            done = subprocess.run(
                [sys.executable, "-m", "lemond_adapter", *command, "--help"],
                capture_output=True,
                text=True,
                check=False,
                env={"COLUMNS": "200", "PATH": ""},
            )
            assert done.returncode == 0, f"lemond-adapter {call}: {done.stderr}"
            helps[command] = done.stdout
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in helps[command], f"lemond-adapter {call}: no option {word}"
