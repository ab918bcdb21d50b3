"""The login form of the admin: a name and a password, with a limit on attempts and one answer for all that fails."""

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError

from apps.orgs import attempts
from apps.orgs.models import User
from apps.orgs.sign_ins import Event, address_of, record

if TYPE_CHECKING:
    from django.contrib.admin.forms import AdminAuthenticationForm as _AuthenticationForm
else:
    from unfold.forms import AuthenticationForm as _AuthenticationForm

TOO_MANY = f"Too many attempts. Try again in {attempts.WINDOW_SECONDS // 60} minutes."


class LoginForm(_AuthenticationForm):
    """Logs in by password."""

    def clean(self) -> dict[str, Any]:
        """Check the password if an attempt is left. Raises `ValidationError`, the same whether the name is known."""
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not name or not password:
            return dict(self.cleaned_data)
        assert self.request is not None
        address = address_of(self.request)
        if not attempts.take(address, name):
            raise ValidationError(TOO_MANY, code="too_many_attempts")
        try:
            data = super().clean()
        except ValidationError:
            user = User.objects.filter(username=name).first()
            record(self.request, Event.REFUSED, user, "Wrong name or password, or no role.")
            raise
        attempts.give_back(address, name)
        return dict(data or self.cleaned_data)
