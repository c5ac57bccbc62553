"""No step may get slower unnoticed: the steps' ratios to the yardstick against those committed in baseline.json.

    python -m bench.smoke             fails if a step's ratio is worse than its baseline by more than 40 %
    python -m bench.smoke --update    measures and writes the baseline, showing what has changed

A ratio is that of two CPU times of the same moment, so it holds on other machines as far as they do Python and C
alike. A step that seems slower is measured again before it is called so.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.steps import STEPS, Cost, Step, measured

BASELINE: Final = Path(__file__).parent / "baseline.json"
WORSE: Final = 1.4
_AGAIN: Final = 3


def judged(cost: Cost, baseline: Mapping[str, float]) -> float:
    """How the cost stands to its baseline; above WORSE it is a failure. A step without a baseline counts as equal."""
    return cost.ratio / baseline.get(cost.name, cost.ratio)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.smoke", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the baseline anew")
    given = parser.parse_args()
    known: dict[str, float] = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    print(f"{'step':<40} {'us':>8} {'ratio':>9} {'baseline':>9} {'change':>7}")
    costs: dict[str, float] = {}
    failed = []
    for step in STEPS:
        cost = _settled(step, {} if given.update else known)
        costs[cost.name] = cost.ratio
        change = judged(cost, known)
        print(
            f"{cost.name:<40} {cost.microseconds:>8.1f} {cost.ratio:>9.0f} {known.get(cost.name, 0):>9.0f} "
            f"{change:>6.2f}x"
        )
        if change > WORSE:
            failed.append(cost.name)
    if given.update:
        BASELINE.write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
        return 0
    if missing := costs.keys() ^ known.keys():
        print(f"without a baseline, or a baseline without a step: {', '.join(sorted(missing))}", file=sys.stderr)
        print("python -m bench.smoke --update writes it", file=sys.stderr)
        return 1
    for name in failed:
        print(f"{name}: slower than its baseline by more than {WORSE - 1:.0%}", file=sys.stderr)
    return 1 if failed else 0


def _settled(step: Step, baseline: Mapping[str, float]) -> Cost:
    """The best of a few measurements, where the first seems too slow."""
    cost = measured(step)
    for _ in range(_AGAIN):
        if judged(cost, baseline) <= WORSE:
            break
        cost = min(cost, measured(step), key=lambda found: found.ratio)
    return cost


if __name__ == "__main__":
    sys.exit(main())
