"""Ten thousand steps of the money's state machine."""

from pathlib import Path

from torture import Figures, long_test, machine_settings


@long_test(seconds=1800)
def money_machine(_: Path, examples: int = 300, steps: int = 50) -> Figures:
    """Reserve, settle, run over, leave, die, post twice; change caps and the time; look after each step."""
    from hypothesis.stateful import run_state_machine_as_test

    from tests.budgets.machine import MoneyMachine

    taken = 0

    class Counted(MoneyMachine):
        def check_invariants(self, *arguments: object) -> None:
            nonlocal taken
            taken += 1
            super().check_invariants(*arguments)

    run_state_machine_as_test(Counted, settings=machine_settings(examples, steps))
    assert taken >= 10_000
    return {"examples": examples, "steps": taken, "overspend": 0}
