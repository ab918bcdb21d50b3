"""Every address that Django serves."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from apps.gateway.views import ChatCompletions, Model, Models
from apps.orgs.cognito import CALLBACK_PATH
from apps.orgs.oidc import Callback, Start
from apps.orgs.rest import openapi, reference
from apps.orgs.rest.views import NotFound
from controlplane import health
from controlplane.error_pages import read_only

handler400 = "controlplane.error_pages.bad_request"
handler404 = "controlplane.error_pages.not_found"
handler500 = "controlplane.error_pages.server_error"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("metrics", read_only(health.metrics)),
    path("v1/chat/completions", ChatCompletions.as_view()),
    path("v1/models", Models.as_view()),
    path("v1/models/<path:model>", Model.as_view()),
    path("admin/", admin.site.urls),
    path("oauth2/login", Start.as_view(), name="oidc_start"),
    path(CALLBACK_PATH, Callback.as_view(), name="oidc_callback"),
    path("v1/admin", NotFound.as_view()),
    path("v1/admin/", include("controlplane.api_urls")),
    path("v1/openapi.json", read_only(openapi.document)),
    path("v1/docs", read_only(reference.page)),
]
