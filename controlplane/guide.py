"""What an organization needs before its first request, how far it is, and where each next step is taken."""

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import RequestRecord
from apps.audit.uuid7 import first_id_at
from apps.gateway.models import ModelRoute
from apps.orgs.admin.shared import GUIDED
from apps.orgs.models import ApiKey, Application, Organization, ProviderCredential, User
from apps.orgs.roles import Action
from apps.orgs.scoping import may
from apps.policies.engine.kinds import Kind
from apps.policies.models import Policy

RIGHT = "orgs.application"
STAYS = timedelta(days=1)
"""How long a guide that is finished stays, counted from the first request: so that its last step is still there."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. ``form`` names the form in which it is done on the spot, ``link`` where else it is done."""

    key: str
    title: str
    text: str
    done: bool
    link: str = ""
    button: str = ""
    form: str = ""
    optional: bool = False
    missing: str = ""
    """What must be done before."""


@dataclass(frozen=True, slots=True)
class Guide:
    """The steps of one organization."""

    organization: Organization
    steps: tuple[Step, ...]

    @property
    def done(self) -> int:
        """How many steps are done."""
        return sum(step.done for step in self.steps)

    @property
    def finished(self) -> bool:
        """Whether nothing is left that must be done."""
        return all(step.done or step.optional for step in self.steps)

    @property
    def current(self) -> str:
        """The key of the first step to do, or nothing. What may wait is passed over once others are done."""
        left = [step for step in self.steps if not step.done and not step.missing]
        pressing = [step for step in left if not (step.optional and self.done)] or left
        return pressing[0].key if pressing else ""

    @property
    def url(self) -> str:
        """The address of the guide's own page."""
        return reverse("admin:setup", args=[self.organization.pk])


def may_set_up(person: User, organization: Organization) -> bool:
    """Whether a person may do what the guide leads through."""
    return may(person, Action.ADD, RIGHT, organization.pk)


def guide_for(person: User) -> Guide | None:
    """Return the guide that a person's front page shows: of the newest organization that is theirs to set up.

    A superadmin's is that of one made lately, or of the only one. ``None`` if there is none, or if it has been finished
    for a while.
    """
    rows = Organization.objects.order_by("-created_at")
    if not person.is_superuser:
        rows = rows.filter(pk__in=[pk for pk in person.roles() if may(person, Action.ADD, RIGHT, pk)])
    newest = list(rows[:2])
    if not newest:
        return None
    if person.is_superuser and len(newest) > 1 and newest[0].created_at < timezone.now() - STAYS:
        return None
    guide = guide_of(newest[0])
    return None if guide.finished and _is_old(newest[0]) else guide


def guide_of(organization: Organization) -> Guide:
    """Return how far an organization is."""
    application = Application.objects.filter(organization=organization, is_active=True).order_by("created_at").first()
    latest = RequestRecord.objects.filter(organization_id=organization.pk).order_by("-id").first()
    allows = _whose(organization, kind=Kind.MODEL_RESTRICTION.value)
    keys = ApiKey.objects.filter(organization=organization, application__isnull=False, revoked_at=None)
    return Guide(
        organization,
        (
            _provider(organization),
            Step(
                "application",
                "Create an application",
                f"“{application}” may call models, with a key."
                if application
                else "A program of yours that calls models.",
                application is not None,
                form="application",
            ),
            Step(
                "key",
                "Create a key",
                "What the application calls with. It is shown once, with examples to copy.",
                keys.exists(),
                form="key",
                missing="" if application else "Create an application first.",
            ),
            Step(
                "policies",
                "Choose policies",
                "Which models, how much money, what must not leave. Without one that allows models, all is refused.",
                Policy.objects.filter(allows).exists(),
                link=f"{reverse('admin:policies_policy_templates', args=[organization.pk])}?{GUIDED}=1",
                button="Choose policies",
            ),
            Step(
                "request",
                "Send a test request",
                "From here, in the application's name, through everything that holds for it.",
                latest is not None,
                link=_playground(application),
                button="Open the playground",
                missing="" if application else "Create an application first.",
            ),
            Step(
                "record",
                "See its record",
                "What was asked, what each policy said, what it cost.",
                latest is not None,
                link=reverse("admin:audit_requestrecord_change", args=[latest.pk]) if latest else "",
                button="See the record",
                missing="" if latest else "Send a test request first.",
            ),
        ),
    )


def _provider(organization: Organization) -> Step:
    simulated = settings.SIMULATED_PROVIDER
    routed = ModelRoute.objects.filter(_whose(organization), is_active=True, credential__is_active=True)
    waiting = (
        ProviderCredential.objects.filter(organization=organization, is_active=True).order_by("created_at").first()
    )
    done = routed.exists() or bool(settings.OPENAI_API_KEY)
    text = "Its address and your secret there. The secret is tested at once, and never shown again."
    if waiting is not None and not done:
        text = f"“{waiting}” is there. Choose which of its models applications may be routed to."
    elif simulated and not done:
        text += " To look around first, go on without: the models sim-… answer from inside this server."
    test = reverse("admin:orgs_providercredential_test", args=[waiting.pk]) if waiting and not done else ""
    return Step(
        "provider",
        "Connect a provider",
        text,
        done,
        link=f"{test}?{GUIDED}=1" if test else "",
        button="Choose its models",
        form="" if test else "provider",
        optional=simulated,
    )


def _playground(application: Application | None) -> str:
    return f"{reverse('admin:playground')}?{urlencode({'application': application.pk} if application else {})}"


def _whose(organization: Organization, **columns: str) -> Q:
    """Return what is an organization's or, for every organization, the platform's."""
    return Q(**columns) & (Q(organization=organization) | Q(organization__isnull=True))


def _is_old(organization: Organization) -> bool:
    of_then = RequestRecord.objects.filter(organization_id=organization.pk, id__lt=first_id_at(timezone.now() - STAYS))
    return of_then.exists()
