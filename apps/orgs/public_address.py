"""The address under which people and programs reach this server, as far as it can know that."""

from django.conf import settings
from django.http import HttpRequest
from django.urls import get_script_prefix

from apps.orgs.cognito import CALLBACK_PATH


def public_url(request: HttpRequest, path: str) -> str:
    """Return the absolute address of a path of ours, which begins without a slash.

    The identity provider sends people back to an address that the operator has registered: that is the public one.
    Without it the request says by which name it came; behind a proxy, ``BEHIND_TLS_PROXY`` by which scheme.
    """
    registered: str = settings.COGNITO_REDIRECT_URI
    if registered.endswith(f"/{CALLBACK_PATH}"):
        return registered.removesuffix(CALLBACK_PATH) + path
    return request.build_absolute_uri(get_script_prefix() + path)
