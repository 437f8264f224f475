"""What the project says of itself holds: README, Makefile, constraints and pyproject agree."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def plain(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name).group()).lower()  # type: ignore[union-attr]


def constraints() -> list[str]:
    lines = (line.split("#")[0].strip() for line in text("constraints.txt").splitlines())
    return [line for line in lines if line]


def test_readme_begins_with_the_two_commands_and_the_makefile_has_them() -> None:
    commands = re.findall(r"^ *(?:\$ )?make (\w+)", text("README.md"), re.MULTILINE)
    assert commands[:2] == ["demo", "test"]
    targets = set(re.findall(r"^(\w+):", text("Makefile"), re.MULTILINE))
    assert set(commands) <= targets


def test_links_in_the_texts_lead_somewhere() -> None:
    missing = []
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").glob("*.md"),
    ]:
        for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in link and not (page.parent / link).exists():
                missing.append(f"{page.name}: {link}")
    assert missing == []


def test_constraints_hold_names_and_versions_only() -> None:
    assert [line for line in constraints() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_every_direct_dependency_is_pinned() -> None:
    declared = [*PROJECT["dependencies"], *(d for e in PROJECT["optional-dependencies"].values() for d in e)]
    pinned = {plain(line) for line in constraints()}
    assert {plain(line) for line in declared} == pinned


def test_changelog_tells_of_this_version() -> None:
    assert f"## {PROJECT['version']}" in text("CHANGELOG.md")


def test_ci_runs_check_and_test() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make check test" in text(".ci/run")
