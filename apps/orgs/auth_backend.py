"""Permissions in Django's own terms, derived from roles: the one place where the admin's come from."""

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.http import HttpRequest

from apps.orgs.models import User
from apps.orgs.roles import PERMISSIONS, Action
from apps.orgs.scoping import may, visible


class MembershipBackend(ModelBackend):
    """Answers ``user.has_perm("policies.change_policy", row)`` from memberships; logs in by password where allowed."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        """Return the user whose password this is; ``None`` where passwords are turned off."""
        if not settings.PASSWORD_LOGIN:
            return None
        return super().authenticate(request, username, password, **kwargs)

    def has_perm(self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: models.Model | None = None) -> bool:
        """Whether a role of the user allows ``perm`` ("app.action_model") on ``obj``, or without it somewhere."""
        named = _parse(perm)
        if named is None or not isinstance(user_obj, User):
            return False
        action, label = named
        if obj is None:
            return may(user_obj, action, label)
        rows: models.QuerySet[models.Model] = models.QuerySet(type(obj)).filter(pk=obj.pk)
        return visible(rows, user_obj, action).exists()

    def has_module_perms(self, user_obj: AbstractBaseUser | AnonymousUser, app_label: str) -> bool:
        """Whether the user may see anything of an app."""
        return isinstance(user_obj, User) and any(
            may(user_obj, Action.VIEW, label) for label in PERMISSIONS if label.startswith(f"{app_label}.")
        )

    def get_all_permissions(
        self, user_obj: AbstractBaseUser | AnonymousUser, obj: models.Model | None = None
    ) -> set[str]:
        """Return every permission that the user holds somewhere, as "app.action_model"."""
        if not isinstance(user_obj, User):
            return set()
        return {
            f"{label.replace('.', f'.{action}_')}"
            for label in PERMISSIONS
            for action in Action
            if may(user_obj, action, label)
        }


def _parse(perm: str) -> tuple[Action, str] | None:
    app, _, codename = perm.partition(".")
    action, _, model = codename.partition("_")
    return (Action(action), f"{app}.{model}") if action in Action.__members__.values() and model else None
