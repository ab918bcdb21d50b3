"""The roles and what each may do: one table, from which the admin's and the API's permissions are derived."""

from enum import StrEnum


class Role(StrEnum):
    """A person's part in an organization; a superadmin's is the whole platform."""

    SUPERADMIN = "superadmin"
    ADMIN = "admin"
    DEVELOPER = "developer"
    AUDITOR = "auditor"


class Action(StrEnum):
    """What can be done to an object."""

    VIEW = "view"
    ADD = "add"
    CHANGE = "change"
    DELETE = "delete"


_VIEW = frozenset({Action.VIEW})
_ALL = frozenset(Action)
_EDIT = frozenset({Action.VIEW, Action.CHANGE})
_NONE: frozenset[Action] = frozenset()

# By "app.model" of the object. A superadmin may do everything that anyone may; what is absent here only they may do.
PERMISSIONS: dict[str, dict[Role, frozenset[Action]]] = {
    "orgs.organization": {Role.ADMIN: _EDIT, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "orgs.application": {Role.ADMIN: _ALL, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "orgs.apikey": {Role.ADMIN: _ALL, Role.DEVELOPER: _ALL - {Action.DELETE}, Role.AUDITOR: _VIEW},
    "orgs.user": {Role.ADMIN: _VIEW, Role.DEVELOPER: _NONE, Role.AUDITOR: _VIEW},
    "orgs.membership": {Role.ADMIN: _ALL, Role.DEVELOPER: _NONE, Role.AUDITOR: _VIEW},
    "orgs.providercredential": {Role.ADMIN: _ALL, Role.DEVELOPER: _NONE, Role.AUDITOR: _VIEW},
    "orgs.usagetag": {Role.ADMIN: _ALL, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "policies.policy": {Role.ADMIN: _ALL, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "policies.policyversion": {Role.ADMIN: _VIEW, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "policies.budget": {Role.ADMIN: _VIEW, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "policies.budgetalert": {Role.ADMIN: _VIEW, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "policies.ledgerentry": {Role.ADMIN: _VIEW, Role.DEVELOPER: _NONE, Role.AUDITOR: _VIEW},
    "policies.price": {Role.ADMIN: _VIEW, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "gateway.modelroute": {Role.ADMIN: _ALL, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "audit.requestrecord": {Role.ADMIN: _VIEW, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "audit.requesttext": {Role.ADMIN: _VIEW, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "audit.changerecord": {Role.ADMIN: _VIEW, Role.DEVELOPER: _NONE, Role.AUDITOR: _VIEW},
    "audit.alert": {Role.ADMIN: _VIEW, Role.DEVELOPER: _VIEW, Role.AUDITOR: _VIEW},
    "alerts.destination": {Role.ADMIN: _ALL, Role.DEVELOPER: _NONE, Role.AUDITOR: _VIEW},
    "alerts.delivery": {Role.ADMIN: _VIEW, Role.DEVELOPER: _NONE, Role.AUDITOR: _VIEW},
}


# What no cell of the table can say, by "app.model": each sentence has its test in `tests/roles`.
BEYOND: dict[str, str] = {
    "orgs.organization": "Only a superadmin names, suspends and reinstates one.",
    "orgs.apikey": "A person's key is its owner's to see, make, rotate and revoke; a member's is an admin's as well. "
    "Who may add an application's may send requests in its name from the playground.",
    "orgs.user": "An admin makes people, as members of the own organization.",
    "orgs.membership": "The last admin of an organization stays, unless a superadmin ends it; the record says so.",
    "policies.policy": "The platform's are a superadmin's.",
    "orgs.providercredential": "The platform's are a superadmin's; a secret is shown to nobody.",
    "gateway.modelroute": "The platform's are a superadmin's.",
    "alerts.destination": "The platform's are a superadmin's; a secret is shown once or never.",
    "alerts.delivery": "Who may change its destination has one that failed tried again.",
}


def as_table() -> str:
    """Return who may do what as a table in Markdown: the documentation's, which a test holds to this."""
    members = [role for role in Role if role is not Role.SUPERADMIN]
    head = "| What | " + " | ".join(role.capitalize() for role in members) + " | Besides |"
    rows = [
        f"| `{label}` | "
        + " | ".join(_in_words(of_roles[role]) for role in members)
        + f" | {BEYOND.get(label, '')} |".replace("  ", " ")
        for label, of_roles in PERMISSIONS.items()
    ]
    return "\n".join([head, "|---" * (len(members) + 2) + "|", *rows])


def _in_words(actions: frozenset[Action]) -> str:
    return ", ".join(action.value for action in Action if action in actions) or "nothing"


def allows(role: Role, action: Action, model_label: str) -> bool:
    """Whether ``role`` may do ``action`` to objects of ``model_label`` ("app.model") in its own organization."""
    if role is Role.SUPERADMIN:
        return True
    return action in PERMISSIONS.get(model_label, {}).get(role, _NONE)
