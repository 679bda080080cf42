"""Figures, ratios and budgets, and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

COLUMNS = (56, 11, 11, 11, 7)


@dataclass(frozen=True, slots=True)
class Sample:
    """Measurements of one thing in one unit."""

    name: str
    unit: str
    values: Sequence[float]
    section: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        """The 99th percentile; of fewer than 100 values the largest but the top one in a hundred: the largest."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on a ratio or a figure."""

    name: str
    value: float
    bound: float
    at_most: bool = True
    unit: str = "x"

    @property
    def passed(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(slots=True)
class Result:
    """What one benchmark found."""

    name: str
    title: str
    samples: list[Sample] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _section: str = ""

    def section(self, title: str) -> None:
        """Begin a group of rows, whose ratios are those to its own first row."""
        self._section = title

    def add(self, name: str, unit: str, values: Iterable[float]) -> Sample:
        """Add a row."""
        sample = Sample(name, unit, list(values), self._section)
        self.samples.append(sample)
        return sample

    def bound(self, name: str, value: float, bound: float, *, at_most: bool = True, unit: str = "x") -> None:
        """Hold a figure against its budget."""
        self.budgets.append(Budget(name, value, bound, at_most, unit))

    def show(self, line: Callable[[str], None]) -> None:
        """Print the rows, then the budgets, then the notes. The last column is each row's ratio to the first of its section."""
        line("")
        line(self.title)
        line(_row("", "median", "p99", "n", "ratio"))
        first: Sample | None = None
        for sample in self.samples:
            if first is None or sample.section != first.section:
                first = sample
                if sample.section:
                    line(f" {sample.section}")
            same = sample.unit == first.unit and sample is not first and first.median > 0
            ratio = f"{sample.median / first.median:.2f}" if same else ""
            cells = (f"{_number(value)} {sample.unit}" for value in (sample.median, sample.p99))
            line(_row(f"  {sample.name}", *cells, str(len(sample.values)), ratio))
        for budget in self.budgets:
            sign = "≤" if budget.at_most else "≥"
            verdict = "PASS" if budget.passed else "MISS"
            line(f"  {verdict}  {budget.name}: {_number(budget.value)} {budget.unit} ({sign} {budget.bound:g})")
        for note in self.notes:
            line(f"  note: {note}")

    def document(self) -> dict[str, Any]:
        """Return it for JSON: no single measurements, but what they amount to."""
        rows = [
            {
                "section": s.section,
                "name": s.name,
                "unit": s.unit,
                "median": s.median,
                "p99": s.p99,
                "count": len(s.values),
            }
            for s in self.samples
        ]
        budgets = [asdict(budget) | {"passed": budget.passed} for budget in self.budgets]
        return {"name": self.name, "title": self.title, "rows": rows, "budgets": budgets, "notes": self.notes}


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


def _row(*cells: str) -> str:
    first, *others = cells
    return f"{first:<{COLUMNS[0]}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(others, COLUMNS[1:], strict=True)
    )
