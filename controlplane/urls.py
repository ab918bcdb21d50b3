"""Every address that Django serves."""

from django.contrib import admin
from django.urls import include, path

from apps.gateway.views import ChatCompletions, Models
from apps.orgs.rest import openapi
from controlplane import health

urlpatterns = [
    path("health", health.alive),
    path("health/ready", health.ready),
    path("metrics", health.metrics),
    path("v1/chat/completions", ChatCompletions.as_view()),
    path("v1/models", Models.as_view()),
    path("admin/", admin.site.urls),
    path("v1/admin/", include("controlplane.api_urls")),
    path("v1/openapi.json", openapi.document),
]
