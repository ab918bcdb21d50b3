"""Two organizations with one row of everything, every text of which holds its organization's marker."""

from datetime import timedelta
from uuid import UUID, uuid4

from django.utils import timezone

from apps.alerts.models import Destination
from apps.audit.models import OpenRequest
from apps.audit.uuid7 import first_id_at
from apps.gateway.models import ModelRoute
from apps.gateway.usage_rolls import roll_usage
from apps.orgs import keys
from apps.orgs.models import Application, Identity, Membership, ProviderCredential, UsageTag, User
from apps.policies.models import Policy, Reservation, SpanPart
from tests.admin.cast import CAP, MEMBERS, Cast, House, build_house, gather, make_record
from tests.api.cast import Api
from tests.api.cast import Cast as ApiCast
from tests.isolation.matrix import Neighbours
from tests.isolation.rows import rows_of


def neighbours() -> tuple[Cast, Neighbours]:
    """Build both organizations; return who is in them, and what."""
    cast = gather()
    for house in (cast.home, cast.foreign):
        furnish(house)
    taken = uuid4().hex
    take_names(cast.foreign, taken)
    own, theirs = ({}, {})  # type: ignore[var-annotated]
    for found, house in ((own, cast.home), (theirs, cast.foreign)):
        for row in rows_of(house.organization.pk):
            found.setdefault(row._meta.label_lower, []).append(row)
    return cast, Neighbours(cast.home, cast.foreign, taken, own, theirs, _api(cast))


def furnish(house: House) -> None:
    """Add what no page makes: a person's key and identity, a request under way with its reservation, usage in sums."""
    now, budget = timezone.now(), house.budget
    keys.issue(organization=house.organization, user=house.user, name=f"own key {house.marker}")
    Identity.objects.create(user=house.user, issuer="https://login.example.com", subject=house.marker)
    SpanPart.objects.create(id=uuid4(), budget=budget, starts_at=now, used_nano_usd=0)
    OpenRequest.objects.create(
        id=uuid4(),
        organization_id=house.organization.pk,
        deadline=now + timedelta(days=30),
        worst_case_nano_usd=0,
        intent={"end_user": house.marker},
    )
    Reservation.objects.create(request_id=uuid4(), budget=budget, amount_nano_usd=0)
    UsageTag.objects.create(organization=house.organization, key="ticket")
    for hours in (2, 1):  # the first is summed up, the second waits for it
        roll_usage()
        at = now - timedelta(hours=hours)
        late = UUID(int=first_id_at(at).int | (uuid4().int & ((1 << 80) - 1)))
        make_record(house.organization, house.application, house.marker, id=late, timestamp=at)


def take_names(house: House, taken: str) -> None:
    """Use a name for one thing of each kind that people name."""
    organization = house.organization
    Application.objects.create(organization=organization, name=taken)
    ProviderCredential.objects.create(organization=organization, name=taken, provider="simulated")
    ModelRoute.objects.create(organization=organization, model=taken, credential=house.credential)
    Policy.objects.create(organization=organization, name=taken, kind="cost_cap", config=CAP)
    Destination.objects.create(organization=organization, name=taken, channel="email", kinds=["key_expiring"])
    user = User.objects.create_user(taken)
    Membership.objects.create(organization=organization, user=user, role="developer")


def release_names(house: House, taken: str) -> None:
    """Rename what the organization has under a name, so that the name is again the other's alone."""
    for model, column in (
        (Application, "name"),
        (ProviderCredential, "name"),
        (ModelRoute, "model"),
        (Destination, "name"),
    ):
        model._base_manager.filter(organization=house.organization, **{column: taken}).update(**{column: uuid4().hex})
    people = User.objects.filter(memberships__organization=house.organization, username__startswith=taken)
    for pk in people.values_list("pk", flat=True):
        User.objects.filter(pk=pk).update(username=uuid4().hex)


def another_of_everything(house: House) -> None:
    """Let the organization have twice as much, and the platform one more organization."""
    build_house(house.marker.partition("-")[0])
    take_names(house, uuid4().hex)
    for row in (house.record, house.entry):
        columns = {one.attname: one.value_from_object(row) for one in row._meta.concrete_fields if not one.primary_key}
        other = {"request_id": uuid4()} if row is house.entry else {}
        type(row).objects.create(**columns | other)


def _api(cast: Cast) -> ApiCast:
    people = {name: Api(keys.issue(user=cast.people[name], name="x").text) for name in ("superadmin", *MEMBERS)}
    outsider = Api(keys.issue(user=cast.people["outsider"], name="x").text)
    return ApiCast(
        organization=cast.home.organization,
        application=cast.home.application,
        **people,
        outsider=outsider,
        elsewhere=cast.foreign.organization,
        elsewheres_application=cast.foreign.application,
        application_key=Api(None),
    )
