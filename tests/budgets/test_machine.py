"""The money's state machine, for as long as CI has time. The long form: `torture`."""

from hypothesis import HealthCheck, Phase, settings

from tests.budgets.machine import MoneyMachine

TestMoney = MoneyMachine.TestCase
TestMoney.settings = settings(
    max_examples=12,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making a failure smaller takes minutes here
)
