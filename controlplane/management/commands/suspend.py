"""``manage.py suspend``: refuse an organization's, an application's or a person's requests from the next one on."""

from controlplane.management.suspending import TurningCommand


class Command(TurningCommand):
    """Suspend it; a person's sessions and keys end with that."""

    help = __doc__
    serves = False
    action = "suspend"
    became = "suspended"
