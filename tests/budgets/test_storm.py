"""Money under fire: many requests at once over four servers that share PostgreSQL alone. The long form: `torture`."""

from collections.abc import Iterator

import pytest

from torture.money_storm import Fleet, check_exact, deadlocks, exact_storm, fleet, use_up


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("storm")) as started:
        yield started


def test_of_200_at_once_over_four_servers_and_five_nested_caps_exactly_the_37_that_fit_are_admitted(
    servers: Fleet,
) -> None:
    check_exact(exact_storm(servers, tight="platform"))
    assert deadlocks(servers) == 0


def test_requests_that_cost_less_than_they_reserve_use_a_cap_up_to_less_than_one_worst_case(servers: Fleet) -> None:
    assert use_up(servers, tight="user", limit_nano_usd=9_000_000, at_once=40) >= 0
    assert servers.verify_ledger().startswith("The money adds up")
