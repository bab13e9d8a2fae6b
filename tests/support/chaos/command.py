"""The command: one run for each of several seeds on one store, a line each, and a readable trace where one fails."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from chaos.check_endings import LAPSED
from chaos.plan import LONG, SHORT
from chaos.rig import STORES
from chaos.run import carry_out
from chaos.trace import tell
from chaos.verdict import Violation, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.facts import Facts
    from chaos.plan import Form


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; return 1 where a promise was broken."""
    options = _parser().parse_args(arguments)
    logging.getLogger("jobtrio.stores").setLevel(logging.ERROR)  # that the store is away and back is what it is about
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers and workers are ended as well
    form = SHORT if options.short else LONG
    seeds = options.seed or range(1, options.seeds + 1)
    failed = []
    for seed in seeds:
        began = time.monotonic()
        facts, violations = run_seed(options.store, seed, form, options.sabotage)
        print(_line(seed, facts, violations, time.monotonic() - began), flush=True)
        if violations:
            failed.append(seed)
            print(tell(facts, violations))
            again = " ".join(f"--seed {each}" for each in failed)
            print(f"again: python -m tests.chaos --store {options.store} {'--short ' * options.short}{again}")
    print(f"{len(seeds) - len(failed)} of {len(seeds)} seeds found nothing")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Have workers share a store while things go wrong, and check what came of it.",
    )
    add = parser.add_argument
    add("--store", choices=STORES, default="sqlite", help="which store (default: sqlite)")
    add("--seeds", type=int, default=20, metavar="N", help="how many seeds, from 1 (default: 20)")
    add("--seed", type=int, action="append", metavar="SEED", help="this seed alone; may be given several times")
    add("--short", action="store_true", help="the short form, which the tests run")
    add("--sabotage", default="", metavar="WHAT", help="what the workers' store is to get wrong, to see it found")
    return parser


def run_seed(store: str, seed: int, form: Form, sabotage: str = "") -> tuple[Facts, list[Violation]]:
    """Carry out the plan of one seed in a folder of its own, and judge it."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        facts = trio.run(carry_out, seed, form, store, Path(folder), sabotage)
    return facts, judge(facts)


def _line(seed: int, facts: Facts, violations: list[Violation], seconds: float) -> str:
    accepted = sum(submission.answer == "accepted" for submission in facts.submissions.values())
    busy = sum(end - begin for begin, end in facts.pauses)
    lost = sum(step.reason == LAPSED for kept in facts.kept.values() for step in kept.history)
    return (
        f"seed {seed}: {accepted} of {len(facts.submissions)} jobs acknowledged, {len(facts.kept)} kept, "
        f"{lost} attempts lost, {len(facts.happenings)} faults, {len(violations)} violations, {seconds:.1f} s"
        f"{f', of which the machine was too busy for {busy:.1f} s' if busy else ''}"
    )


if __name__ == "__main__":
    sys.exit(main())
