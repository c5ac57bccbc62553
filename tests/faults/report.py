"""What came of a run, as a picture a person reads at a glance and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from tests.faults.laws import Finding
from tests.faults.plan import Act, Step

BUSY: Final = 50
"""Calls under way from which a kill counts as one under load."""
SHOWN: Final = 5
"""Violations of a law that are written out."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A step of the plan as it was carried out."""

    at: float
    """Seconds since the load began."""
    step: Step
    in_flight: int
    """Calls under way at that moment."""


@dataclass(slots=True)
class Report:
    seed: int
    seconds: float = 0.0
    strikes: list[Strike] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """What the load and the bus amount to."""
    findings: Sequence[Finding] = ()

    @property
    def kills(self) -> list[Strike]:
        return [strike for strike in self.strikes if strike.step.act is Act.KILL]

    @property
    def clean(self) -> bool:
        return not any(finding.violations for finding in self.findings)

    def text(self) -> str:
        return "\n".join([*self._head(), "", *self._table(), *self._violations()])

    def document(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "clean": self.clean,
            "counts": self.counts,
            "kills": self._kills(),
            "findings": [asdict(finding) for finding in self.findings],
            "strikes": [
                {"at": round(strike.at, 1), "what": str(strike.step), "in_flight": strike.in_flight}
                for strike in self.strikes
            ],
        }

    def json(self) -> str:
        return json.dumps(self.document(), indent=1, default=str)

    def _kills(self) -> dict[str, Any]:
        in_flight = [strike.in_flight for strike in self.kills]
        return {
            "all": len(self.kills),
            "by role": dict(Counter(strike.step.target.partition(" ")[0] for strike in self.kills)),
            "under load": sum(number > BUSY for number in in_flight),
            "median in flight": median(in_flight) if in_flight else 0,
        }

    def _head(self) -> list[str]:
        kills = self._kills()
        acts = Counter(strike.step.act.value for strike in self.strikes)
        by_role = ", ".join(f"{role} {count}" for role, count in sorted(kills["by role"].items()))
        return [
            f"seed {self.seed}, {self.seconds / 60:.1f} minutes of load",
            f"{kills['all']} kills ({by_role})",
            f"{kills['under load']} of them with over {BUSY} calls under way, median {kills['median in flight']:.0f}",
            "faults: " + ", ".join(f"{act} {count}" for act, count in sorted(acts.items())),
            ", ".join(f"{name} {count:,}" for name, count in self.counts.items()),
        ]

    def _table(self) -> list[str]:
        wide = max(len(finding.law) for finding in self.findings)
        says = max(len(finding.says) for finding in self.findings)
        lines = [f"    {'law':{wide}}  {'what it says':{says}}  {'cases':>9}  {'violations':>10}"]
        rule = "─" * (wide + says + 29)
        lines.append(rule)
        for finding in self.findings:
            broken = len(finding.violations)
            mark = "✗" if broken else "✓" if finding.cases else "·"
            lines.append(
                f"  {mark} {finding.law:{wide}}  {finding.says:{says}}  {finding.cases:>9,}  {broken or '':>10}"
            )
        lines.append(rule)
        verdict = "no law was broken" if self.clean else "LAWS WERE BROKEN"
        untried = sum(not finding.cases for finding in self.findings)
        return [*lines, f"  {verdict}" + (f"; {untried} not tried (·)" if untried else "")]

    def _violations(self) -> list[str]:
        lines = []
        for finding in self.findings:
            if finding.violations:
                lines += ["", f"{finding.law}:"]
                lines += [f"  {what}" for what in finding.violations[:SHOWN]]
                if (more := len(finding.violations) - SHOWN) > 0:
                    lines.append(f"  and {more} more")
        return lines
