"""
What a run found: goals, tables, sentences; kept as JSON in results/, a file for each group, and shown in docs/overhead.md.

The file of a group holds its latest run, so `git diff benchmarks/results` compares with the one that was committed.
docs/overhead.md is reading.md with the tables and sentences of all groups put in; what was never measured says so.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from machine import HERE

RESULTS: Final = HERE / "results"
_READING: Final = HERE / "reading.md"
Cell = str | float | None
"""None: there is nothing to say."""


@dataclass(frozen=True)
class Goal:
    """One thing that was promised."""

    text: str
    measured: str
    is_met: bool

    def row(self) -> list[str]:
        """Return it as a row of a table."""
        return [self.text, self.measured, "met" if self.is_met else "**not met**"]


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers."""

    columns: Mapping[str, str]
    """Title of each column → how its numbers are written, as format() has it."""
    rows: Sequence[Sequence[Cell]]

    def markdown(self) -> str:
        """Return it in Markdown; the columns but the first are right-aligned."""
        written = [
            [_write(cell, how) for cell, how in zip(row, self.columns.values(), strict=True)]
            for row in self.rows
        ]
        rule = ["---", *["--:"] * (len(self.columns) - 1)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (list(self.columns), rule, *written))


def _write(cell: Cell, how: str) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else format(cell, how)


@dataclass(frozen=True)
class Results:
    """What a group found, by the names that reading.md has for it."""

    goals: Sequence[Goal] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """Sentences."""


@dataclass(frozen=True)
class Run:
    """Where and when a group was measured, and what was found."""

    machine: str
    date: str
    commit: str
    results: Results

    def write(self, group: str, folder: Path = RESULTS) -> None:
        """Write it in place of the group's run before."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (folder / f"{group}.json").write_text(text + "\n", encoding="utf-8")


def read(group: str, folder: Path = RESULTS) -> Run | None:
    """Return the latest run of *group*; None: there is none."""
    path = folder / f"{group}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    results = found.pop("results")
    return Run(
        **found,
        results=Results(
            [Goal(**goal) for goal in results["goals"]],
            {name: Table(**table) for name, table in results["tables"].items()},
            results["facts"],
        ),
    )


def goals_table(now: Sequence[Goal], before: Sequence[Goal] = ()) -> Table:
    """Return goals beside what was measured; and, if there is a run *before*, beside what that one measured."""
    columns = {"goal": "", "measured": "", "": ""}
    if not before:
        return Table(columns, [goal.row() for goal in now])
    earlier = {goal.text: goal.measured for goal in before}
    return Table(columns | {"before": ""}, [[*goal.row(), earlier.get(goal.text, "-")] for goal in now])


class _Tables(dict[str, str]):
    """By the names that reading.md has for them."""

    def __missing__(self, name: str) -> str:
        return "*Not measured yet.*"


class _Facts(dict[str, str]):
    """The same."""

    def __missing__(self, name: str) -> str:
        return ""


def overview(runs: Mapping[str, Run]) -> str:
    """Return reading.md filled with *runs*, by group."""
    goals = goals_table([goal for run in runs.values() for goal in run.results.goals])
    tables, facts = _Tables(), _Facts()
    for run in runs.values():
        tables.update({name: table.markdown() for name, table in run.results.tables.items()})
        facts.update(run.results.facts)
    reading = _READING.read_text(encoding="utf-8")
    return reading.format(runs=_when(runs), goals=goals.markdown(), tables=tables, facts=facts)


def _when(runs: Mapping[str, Run]) -> str:
    """Say which group was measured when, at which commit and where; groups of one run together."""
    groups: dict[str, list[str]] = {}
    for group, run in runs.items():
        groups.setdefault(f"{run.date}, commit {run.commit}, {run.machine}", []).append(group)
    return "\n".join(f"- {_join(names)}: {when}" for when, names in groups.items())


def _join(names: Iterable[str]) -> str:
    return ", ".join(f"*{name}*" for name in names)
