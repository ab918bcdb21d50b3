"""The addresses of the JSON API, below ``/v1/admin/``."""

from django.urls import path, re_path
from rest_framework.routers import SimpleRouter

from apps.alerts.api import AlertListing, DeliveryListing, DestinationCollection
from apps.audit.api.changes import ChangeListing
from apps.audit.api.exports import ExportListing
from apps.audit.api.records import RecordListing
from apps.audit.api.searches import SavedSearchCollection
from apps.audit.api.usage import Usage
from apps.gateway.api import EffectivePolicies, PolicyEvaluation, RouteCollection
from apps.orgs.api import (
    ApplicationCollection,
    CredentialCollection,
    KeyCollection,
    MembershipCollection,
    OrganizationCollection,
    UserCollection,
)
from apps.orgs.rest.views import NotFound
from apps.policies.api import BudgetListing, PolicyCollection, PriceCollection

router = SimpleRouter(trailing_slash=False)
router.register("organizations", OrganizationCollection, basename="organization")
router.register("applications", ApplicationCollection, basename="application")
router.register("keys", KeyCollection, basename="key")
router.register("users", UserCollection, basename="user")
router.register("memberships", MembershipCollection, basename="membership")
router.register("policies", PolicyCollection, basename="policy")
router.register("provider-credentials", CredentialCollection, basename="provider-credential")
router.register("routes", RouteCollection, basename="route")
router.register("prices", PriceCollection, basename="price")
router.register("budgets", BudgetListing, basename="budget")
router.register("alerts", AlertListing, basename="alert")
router.register("alert-destinations", DestinationCollection, basename="alert-destination")
router.register("alert-deliveries", DeliveryListing, basename="alert-delivery")
router.register("audit-logs", RecordListing, basename="audit-log")
router.register("saved-searches", SavedSearchCollection, basename="saved-search")
router.register("exports", ExportListing, basename="export")
router.register("changes", ChangeListing, basename="change")

urlpatterns = [
    path("policies/evaluate", PolicyEvaluation.as_view()),
    path("policies/effective", EffectivePolicies.as_view()),
    *router.urls,
    path("metrics/usage", Usage.as_view()),
    re_path("", NotFound.as_view()),
]
