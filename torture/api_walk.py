"""Fifteen thousand requests from the OpenAPI document, good and broken, each drawn anew."""

from pathlib import Path

from torture import Figures, long_test, machine_settings


@long_test(seconds=1800)
def api_walk(_: Path, examples: int = 150, steps: int = 100) -> Figures:
    """Send what the document describes, and what it does not, by every role; look at each answer."""
    from hypothesis.stateful import run_state_machine_as_test

    from apps.gateway.runtime import BACKGROUND
    from tests.api.walk import Walk

    try:
        run_state_machine_as_test(Walk, settings=machine_settings(examples, steps))
    finally:
        BACKGROUND.stop()
    answers = {status for statuses in Walk.statuses.values() for status in statuses}
    return {"requests": Walk.steps, "operations": len(Walk.statuses), "statuses": sorted(answers)}


@long_test(seconds=1800)
def api_links(_: Path, examples: int = 100, steps: int = 40) -> Figures:
    """Let Schemathesis send what the document describes and follow its links, by every role."""
    from apps.gateway.runtime import BACKGROUND
    from apps.orgs.roles import Role
    from tests.api.test_schemathesis import machine_of

    try:
        for role in (Role.ADMIN, Role.DEVELOPER, Role.AUDITOR):
            machine_of(role).run(settings=machine_settings(examples, steps))
    finally:
        BACKGROUND.stop()
    return {"examples": 3 * examples, "steps": steps}
