"""Every address that Django serves."""

from django.contrib import admin
from django.urls import include, path

from apps.orgs.rest import openapi

urlpatterns = [
    path("admin/", admin.site.urls),
    path("v1/admin/", include("controlplane.api_urls")),
    path("v1/openapi.json", openapi.document),
]
