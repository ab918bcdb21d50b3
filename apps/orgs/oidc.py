"""Login to the admin with the identity provider: the authorization code flow with PKCE, state and nonce.

`mozilla-django-oidc` keeps state, nonce and verifier in the session and redeems the code. What an ID token must be is
decided by `apps.orgs.jwts`, and what its claims make of a person by `apps.orgs.identities`. No token is kept.
"""

import hmac
import logging
from typing import TYPE_CHECKING, Any

from django.contrib import admin, auth
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from mozilla_django_oidc.utils import import_from_settings

from apps.orgs import attempts, jwts, sessions
from apps.orgs.cognito import IdentityProvider, login_provider
from apps.orgs.identities import NotAdmitted, admit, user_of_subject
from apps.orgs.jwks import SigningKeysUnavailable
from apps.orgs.jwts import Claims, RefusedToken
from apps.orgs.login_form import TOO_MANY
from apps.orgs.models import User
from apps.orgs.outbound import ask
from apps.orgs.sign_ins import Event, address_of, record
from apps.orgs.strict_json import parse_strict

if TYPE_CHECKING:
    from django.contrib.auth.backends import ModelBackend as _Backend
    from django.views import View

    class _StartView(View):
        """What the library, which carries no types, gives its views."""

        def get(self, request: HttpRequest) -> Any: ...

    class _CallbackView(_StartView):
        success_url: str
        user: User
else:
    from mozilla_django_oidc.auth import OIDCAuthenticationBackend as _Backend
    from mozilla_django_oidc.views import OIDCAuthenticationCallbackView as _CallbackView
    from mozilla_django_oidc.views import OIDCAuthenticationRequestView as _StartView

logger = logging.getLogger(__name__)

READ_SECONDS = 3.0
TOKEN_SECONDS = 6.0
MAX_ANSWER_BYTES = 64 * 1024
BEGIN_AGAIN = "The login could not be completed. Please begin again."


class LoginRefused(Exception):
    """A login ends here. The message is shown to the person; ``reason`` is for the record. Neither quotes a value."""

    def __init__(self, message: str, reason: str, user: User | None = None, status: int = 403) -> None:
        super().__init__(message)
        self.reason = reason
        self.user = user
        self.status = status


def setting(name: str, *default: Any) -> Any:
    """Return what the library asks the settings for: of the provider, of the flow, or Django's own."""
    provider = login_provider()
    ours: dict[str, Any] = {
        "OIDC_OP_AUTHORIZATION_ENDPOINT": provider.authorize_url if provider else "",
        "OIDC_OP_TOKEN_ENDPOINT": provider.token_url if provider else "",
        "OIDC_OP_USER_ENDPOINT": "",  # never asked: the ID token says it all
        "OIDC_OP_JWKS_ENDPOINT": provider.keys_url if provider else "",
        "OIDC_RP_CLIENT_ID": provider.client_id if provider else "",
        "OIDC_RP_CLIENT_SECRET": provider.client_secret if provider else "",
        "OIDC_RP_SIGN_ALGO": "RS256",
        "OIDC_RP_SCOPES": "openid email profile",
        "OIDC_USE_NONCE": True,
        "OIDC_USE_PKCE": True,
        "OIDC_PKCE_CODE_CHALLENGE_METHOD": "S256",
        "OIDC_AUTHENTICATION_CALLBACK_URL": "oidc_callback",
    }
    return ours[name] if name in ours else import_from_settings(name, *default)


class ProviderBackend(_Backend):
    """Finds out who somebody is by a code of the identity provider's. Permissions are the other backend's business."""

    get_settings = staticmethod(setting)
    request: HttpRequest

    def __init__(self) -> None:
        """Read no settings yet: Django makes a backend for each question about permissions, a hundred times a page."""

    # No name and no password among the parameters: Django asks this backend with a code's companions or not at all.
    def authenticate(self, request: HttpRequest | None, *, nonce: str, code_verifier: str) -> Any:  # type: ignore[override]
        """Return the person. Raises `LoginRefused`, `NotAdmitted`, `RefusedToken` and `SigningKeysUnavailable`."""
        if not nonce or not code_verifier:
            raise LoginRefused(BEGIN_AGAIN, "The login was begun without nonce or verifier.")
        super().__init__()
        return super().authenticate(request, nonce=nonce, code_verifier=code_verifier)

    def get_token(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Redeem the code, within bounds; the answer's fields. Raises `LoginRefused`."""
        provider = login_provider()
        if provider is None:
            raise Http404
        if provider.redirect_uri:
            payload["redirect_uri"] = provider.redirect_uri
        if not provider.client_secret:
            del payload["client_secret"]
        return _redeem(provider.token_url, payload)

    def verify_token(self, token: Any, **kwargs: Any) -> Claims:
        """Return what the ID token says. Raises `RefusedToken` and `SigningKeysUnavailable`."""
        claims = jwts.verify(token if isinstance(token, str) else "")
        if claims.use != "id":
            raise RefusedToken("wrong token_use")
        if not claims.nonce or not hmac.compare_digest(claims.nonce.encode(), kwargs["nonce"].encode()):
            raise RefusedToken("wrong nonce")
        return claims

    def store_tokens(self, access_token: Any, id_token: Any) -> None:
        """Keep none of them."""

    def get_or_create_user(self, access_token: Any, id_token: Any, payload: Claims) -> User:
        """Return the person of issuer and subject, as the claims make them. Raises `LoginRefused`."""
        try:
            return admit(payload, "admin", address_of(self.request))
        except NotAdmitted as error:
            raise LoginRefused(str(error), str(error), user_of_subject(payload)) from error

    def get_user(self, user_id: Any) -> Any:
        """Return who is logged in; nobody if they have been disabled."""
        return ModelBackend.get_user(self, user_id)

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Never from here."""
        return False

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """Never from here."""
        return False

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Return none."""
        return set()


@method_decorator(never_cache, name="dispatch")
class Start(_StartView):
    """Sends a person to the identity provider's login."""

    get_settings = staticmethod(setting)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Redirect, with state, nonce and PKCE. A ``next`` that leads to another host is forgotten."""
        _provider_or_404()
        response: HttpResponse = super().get(request)
        return response

    def get_extra_params(self, request: HttpRequest) -> dict[str, str]:
        """Return the address that the provider has registered, if it is not made of the request's host."""
        uri = _provider_or_404().redirect_uri
        return {"redirect_uri": uri} if uri else {}


@method_decorator(never_cache, name="dispatch")
class Callback(_CallbackView):
    """Takes in whom the identity provider sends back, or says why not."""

    get_settings = staticmethod(setting)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Log in and redirect, or answer with a page that says why nobody was logged in."""
        _provider_or_404()
        states = request.session.get("oidc_states", {})
        if request.GET.get("state", "") not in states:
            # Anybody can send anybody here: this ends no session and writes no record.
            return self.refusal(
                LoginRefused("This login was not begun here, or was used before. Please begin again.", "")
            )
        if not attempts.take_at_the_provider(address_of(request)):
            return self.refusal(LoginRefused(TOO_MANY, "", status=429))
        try:
            return self.redeem(request)
        except LoginRefused as error:
            return self.refuse(error)
        except RefusedToken as error:
            return self.refuse(LoginRefused(BEGIN_AGAIN, f"The provider's token is refused: {error.reason}."))
        except SigningKeysUnavailable:
            return self.refuse(_unreachable())

    def redeem(self, request: HttpRequest) -> HttpResponse:
        """Do what the library does with a code. Raises what its parts raise."""
        if "error" in request.GET or "code" not in request.GET:
            del request.session["oidc_states"][request.GET["state"]]
            request.session.modified = True
            raise LoginRefused("The identity provider did not log you in.", "The provider refused the login.")
        try:
            response: HttpResponse = super().get(request)
        except SuspiciousOperation as error:
            raise LoginRefused(BEGIN_AGAIN, "The login was used before.") from error
        return response

    def login_success(self) -> HttpResponse:
        """Log in under a new session id. Who is asked anew keeps the session's beginning and open forms."""
        target = self.success_url
        attempts.give_back_at_the_provider(address_of(self.request))
        if self.request.user == self.user:
            self.request.session.cycle_key()
        else:
            auth.login(self.request, self.user)
            sessions.begin(self.request)
            record(self.request, Event.LOGIN, self.user)
        sessions.note_asked(self.request)
        return HttpResponseRedirect(target)

    def login_failure(self) -> HttpResponse:
        """Stop. Raises `LoginRefused`."""
        raise LoginRefused(BEGIN_AGAIN, "The login could not be completed.")

    def refuse(self, error: LoginRefused) -> HttpResponse:
        """End the session that there may have been, record why, and say so."""
        record(self.request, Event.REFUSED, error.user, error.reason)
        auth.logout(self.request)
        return self.refusal(error)

    def refusal(self, error: LoginRefused) -> HttpResponse:
        """Return the page that says why nobody was logged in."""
        context = {**admin.site.each_context(self.request), "title": "Not logged in", "reason": str(error)}
        return TemplateResponse(self.request, "control_plane/login_refused.html", context, status=error.status)


def _provider_or_404() -> IdentityProvider:
    provider = login_provider()
    if provider is None:
        raise Http404
    return provider


def _unreachable() -> LoginRefused:
    text = "The identity provider cannot be reached. Please try again in a minute."
    return LoginRefused(text, "The identity provider could not be reached.", status=503)


def _redeem(url: str, payload: dict[str, Any]) -> dict[str, Any]:
    """POST a form to the provider; return its answer, a JSON object. Raises `LoginRefused`."""
    import httpx  # noqa: PLC0415 (a tenth of a second that only those with an identity provider need)

    try:
        status, body = ask(
            "POST", url, silence_seconds=READ_SECONDS, seconds=TOKEN_SECONDS, most_bytes=MAX_ANSWER_BYTES, form=payload
        )
    except ValueError as error:
        raise _unreachable() from error
    except httpx.HTTPError as error:
        logger.warning("The identity provider cannot be reached: %s", type(error).__name__)
        raise _unreachable() from error
    if status != 200:
        raise LoginRefused(BEGIN_AGAIN, "The provider refused the code.")
    return _fields(body)


def _fields(body: bytes) -> dict[str, Any]:
    try:
        answer = parse_strict(body)
    except ValueError as error:
        raise _unreachable() from error
    if not isinstance(answer, dict):
        raise _unreachable()
    return answer
