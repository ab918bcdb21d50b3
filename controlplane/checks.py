"""Checks of the project that Django runs with `manage.py check` and before every start."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.checks import CheckMessage, Error, Tags, register

from apps.orgs.cognito import problem_of_settings
from apps.orgs.scoped_admin import ScopedAdmin, ScopedInline
from controlplane.secrets import DEVELOPMENT_KEY


@register(Tags.security)
def admin_pages_are_scoped(**_: Any) -> list[CheckMessage]:
    """Report every page and inline of the admin that could show one organization's rows to another."""
    pages = admin.site._registry.values()  # noqa: SLF001  # Django has no other way to list them all
    return [message for page in pages for message in (*_page_errors(page), *_inline_errors(page))]


@register(Tags.security)
def simulated_provider_is_for_development(**_: Any) -> list[CheckMessage]:
    """Report the simulated provider in production: it answers nothing real, and free of charge."""
    if not (settings.PRODUCTION and settings.SIMULATED_PROVIDER):
        return []
    return [
        Error(
            "The simulated provider answers nothing real: unset SIMULATED_PROVIDER in production.",
            id="controlplane.E004",
        )
    ]


@register(Tags.security)
def secrets_are_encrypted_under_keys_of_the_operator(**_: Any) -> list[CheckMessage]:
    """Report production without a wrapping key, or with the one that a developer's machine made for itself."""
    if not settings.PRODUCTION or settings.KMS_KEY_ID:
        return []
    if not settings.ENCRYPTION_KEYS:
        return [Error("Production needs KMS_KEY_ID or ENCRYPTION_KEYS in the environment.", id="controlplane.E006")]
    if next(iter(settings.ENCRYPTION_KEYS)) == DEVELOPMENT_KEY:
        return [
            Error(
                f"ENCRYPTION_KEYS begins with '{DEVELOPMENT_KEY}', a key that a developer's machine made for itself.",
                hint="Put a new key first, keep this one behind it, and run 'manage.py rotate_encryption'.",
                id="controlplane.E007",
            )
        ]
    return []


@register(Tags.security)
def identity_provider_is_whole(**_: Any) -> list[CheckMessage]:
    """Report an identity provider of which half is set: nobody could log in, or no token would be read."""
    problem = problem_of_settings()
    return [Error(problem, id="controlplane.E005")] if problem else []


def _page_errors(page: Any) -> Iterator[Error]:
    if not isinstance(page, ScopedAdmin):
        yield Error(
            f"The admin page of {page.opts.label} is not scoped by organization.",
            hint="Build it on apps.orgs.scoped_admin.ScopedAdmin, or unregister it.",
            obj=type(page),
            id="controlplane.E001",
        )
    if page.raw_id_fields:
        yield _raw_id_error(page)


def _inline_errors(page: Any) -> Iterator[Error]:
    for inline in page.inlines:
        if not issubclass(inline, ScopedInline):
            yield Error(
                f"The inline {inline.__name__} of {page.opts.label} is not scoped by organization.",
                hint="Build it on apps.orgs.scoped_admin.ScopedInline.",
                obj=type(page),
                id="controlplane.E002",
            )
        if inline.raw_id_fields:
            yield _raw_id_error(inline)


def _raw_id_error(page: Any) -> Error:
    return Error(
        "Raw id fields name any row of any organization whose id is typed in.",
        hint="Use autocomplete_fields.",
        obj=page,
        id="controlplane.E003",
    )
