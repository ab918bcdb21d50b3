"""``manage.py reinstate``: serve an organization, an application or a person again that was suspended."""

from controlplane.management.suspending import TurningCommand


class Command(TurningCommand):
    """Reinstate it."""

    help = __doc__
    serves = True
    action = "activate"
    became = "active"
