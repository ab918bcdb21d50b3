"""What a name may be, wherever it is typed: nothing in it hides, and capital letters do not make it another one."""

import unicodedata

from django.core.exceptions import ValidationError
from django.db import models

HIDES = "Contains characters that cannot be seen. Type it anew."
_JOINERS = frozenset("\u200c\u200d")  # invisible, and needed to write Persian, Hindi and joined emoji


def hides_something(text: str) -> bool:
    """Whether a character shows nothing or turns the text around it, so that two names could look the same."""
    return any(map(_is_invisible, text))


def refuse_other_capitals(row: models.Model, field: str) -> None:
    """Refuse a new name that another row has, were it not for capital letters. Raises `ValidationError`."""
    name = getattr(row, field)
    rows: models.QuerySet[models.Model] = models.QuerySet(type(row))
    others = rows.filter(**{f"{field}__iexact": name}).exclude(pk=row.pk)
    if others.exists() and not rows.filter(pk=row.pk, **{field: name}).exists():
        kind = str(row._meta.verbose_name)
        message = f"{'An' if kind[0] in 'aeio' else 'A'} {kind} of this name already exists."
        raise ValidationError({field: ValidationError(message, code="unique")})


def _is_invisible(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}
