"""The admin pages of organizations, applications, API keys, users and providers' credentials."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group

from apps.orgs.admin import applications, credentials, keys, organizations, users

__all__ = ["applications", "credentials", "keys", "organizations", "users"]

# Groups are not how rights are given here; importing Django's module for them is what registers their page.
assert admin.site.get_model_admin(Group).__class__ is GroupAdmin
admin.site.unregister(Group)
