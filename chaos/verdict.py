"""What came out, against what must."""

from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from chaos.ledger import Counts, Ledger

CAPTION: Final = (
    "lost: not ended, or not as it must (an innocent failed as poison) · wrong: not its prompt's answer · "
    "doubled: looked at again, a different answer · extra: executions beyond a job's first · "
    "refused: submits without a 202"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One sentence that must be true."""

    what: str
    found: str
    met: bool
    #: A matter of seconds: judged in a full run only, as a short one on a busy machine says nothing about it.
    timed: bool = False


def most(what: str, found: float, bound: float, *, timed: bool = False) -> Target:
    """Return the target that ``found`` is ``bound`` at most."""
    shown = f"{found:.1f}" if isinstance(found, float) else str(found)
    return Target(what=f"{what}: at most {bound:g}", found=shown, met=found <= bound, timed=timed)


def exactly(what: str, found: int, wanted: int) -> Target:
    """Return the target that ``found`` is ``wanted``."""
    return Target(what=f"{what}: {wanted}", found=str(found), met=found == wanted)


def quantile(values: list[float], share: float) -> float:
    """Return the value that ``share`` of all values do not exceed (nearest rank); 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def print_scenes(console: Console, ledger: Ledger, scenes: list[str]) -> None:
    """Print what became of the jobs, by the scene in which they were accepted."""
    names = ["accepted", "finished", "lost", "wrong", "doubled", "extra", "refused"]
    table = Table("scene", caption=CAPTION, caption_justify="left")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for scene in scenes:
        table.add_row(scene, *_numbers(ledger.counts(scene)))
    table.add_section()
    table.add_row("all", *_numbers(ledger.counts()))
    console.print(table)


def print_targets(console: Console, targets: list[Target], *, judge_timed: bool) -> bool:
    """Print every target with what was found; returns whether all that are judged are met."""
    table = Table("must be", "found", "")
    good = True
    for target in targets:
        judged = judge_timed or not target.timed
        good = good and (target.met or not judged)
        mark = "not judged" if not judged else "[green]met[/]" if target.met else "[bold red]MISSED[/]"
        table.add_row(target.what, target.found, mark)
    console.print(table)
    return good


def _numbers(counts: Counts) -> list[str]:
    found = (
        counts.accepted,
        counts.finished,
        counts.lost,
        counts.wrong,
        counts.changed,
        counts.extra_attempts,
        counts.refused,
    )
    return [str(one) for one in found]
