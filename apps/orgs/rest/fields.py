"""Serializer fields and the base serializer of the API's objects."""

from typing import Any, ClassVar, TypeVar

from django.db.models import CharField, Model, Q, QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.audit.values import without_odd_characters
from apps.orgs.models import User
from apps.orgs.naming import HIDES, hides_something
from apps.orgs.rest.filters import as_uuid
from apps.orgs.scoping import visible

M = TypeVar("M", bound=Model)

MOST_SHOWN_OF_A_NAME = 100


@extend_schema_field(OpenApiTypes.UUID)
class Reference(serializers.PrimaryKeyRelatedField[Any]):
    """The id of another object that the caller may see. Others' ids and ids of nothing are refused alike."""

    default_error_messages = {"unknown": "Unknown id."}

    def __init__(self, model: type[Model], **options: Any) -> None:
        self.model = model
        super().__init__(**options)

    def get_queryset(self) -> "QuerySet[Any]":
        """Return what the caller may see, and themselves."""
        caller: User = self.context["request"].user
        rows: QuerySet[Any] = visible(QuerySet(self.model), caller)
        if self.model is User:
            return User.objects.filter(Q(pk=caller.pk) | Q(pk__in=rows.values("pk")))
        return rows

    def to_internal_value(self, data: Any) -> Any:
        """Return the row."""
        try:
            row = self.get_queryset().filter(pk=as_uuid(data)).first()
        except (ValueError, TypeError):
            row = None
        return row or self.fail("unknown")

    def to_representation(self, value: Any) -> str:
        """Return the id."""
        return str(value.pk)


class Choice(serializers.ChoiceField):
    """One of some words. The refusal lists them and does not quote what came instead."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the word."""
        if not isinstance(data, str) or data not in self.choices:
            raise serializers.ValidationError("Must be one of " + ", ".join(map(str, self.choices)) + ".")
        return data


class Text(serializers.CharField):
    """A text, and nothing that would have to be turned into one."""

    def to_internal_value(self, data: Any) -> str:
        """Return the text."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """True or false, and no word that may mean either."""

    def to_internal_value(self, data: Any) -> bool:
        """Return the truth value."""
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false.")
        return data


class Whole(serializers.IntegerField):
    """A whole number, not its text and not a truth value."""

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        if not isinstance(data, int) or isinstance(data, bool):
            raise serializers.ValidationError("Must be a whole number.")
        return super().to_internal_value(data)


_MAPPING = serializers.ModelSerializer.serializer_field_mapping
_STRICT: dict[type[serializers.Field[Any, Any, Any, Any]], type[serializers.Field[Any, Any, Any, Any]]] = {
    serializers.CharField: Text,
    serializers.BooleanField: Flag,
    serializers.IntegerField: Whole,
}


class Readable(serializers.BooleanField):
    """Whether an object's stored secret can be decrypted; for the method ``readable`` of `HoldsSecrets`."""

    def __init__(self, **options: Any) -> None:
        text = "Whether the stored secret can be decrypted: false, give it anew. Null: the key service does not answer."
        super().__init__(**{"read_only": True, "allow_null": True, "help_text": text, **options})


class ObjectSerializer(serializers.ModelSerializer[M]):
    """An object of the API.

    ``Meta.fixed`` names what is said when it is made and cannot be changed. Rules between fields, and uniqueness,
    are the model's and are checked there; see `errors.full_clean`.
    """

    serializer_field_mapping = {model: _STRICT.get(own, own) for model, own in _MAPPING.items()}
    serializer_choice_field = Choice
    serializer_related_field = Reference
    instance: M | None

    class Meta:
        validators: ClassVar[list[Any]] = []
        fixed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if isinstance(self.instance, Model):
            for name in self.Meta.fixed:
                self.fields[name].required = False

    def build_standard_field(self, field_name: str, model_field: Any) -> Any:
        """Leave uniqueness to the model: a serializer's own check would say whose name it is."""
        field_class, options = super().build_standard_field(field_name, model_field)
        options["validators"] = [v for v in options.get("validators", []) if not isinstance(v, UniqueValidator)]
        return field_class, options

    def get_uniqueness_extra_kwargs(self, field_names: Any, declared_fields: Any, extra_kwargs: Any) -> Any:
        """Leave uniqueness to the model."""
        return extra_kwargs, {}

    def to_internal_value(self, data: Any) -> Any:
        """Refuse a field that there is not: a policy whose ``application`` is misspelt would be everybody's.

        What an answer shows may be sent back, what it shows but once as well.
        """
        known = self.fields.keys() | getattr(self.context.get("view"), "shown_once", frozenset())
        if isinstance(data, dict) and (unknown := data.keys() - known):
            names = sorted(without_odd_characters(name)[:MOST_SHOWN_OF_A_NAME] for name in unknown)
            raise serializers.ValidationError(dict.fromkeys(names, "There is no such field."))
        return super().to_internal_value(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a change of what is fixed, and new names that hide something; saying one again is no change."""
        for name, value in attrs.items():
            if self._is_line(name) and hides_something(value or "") and value != getattr(self.instance, name, None):
                raise serializers.ValidationError({name: HIDES})
        if isinstance(self.instance, Model):
            for name in self.Meta.fixed:
                column = self.fields[name].source or name
                if column in attrs and attrs.pop(column) != getattr(self.instance, column):
                    raise serializers.ValidationError({name: "This cannot be changed; make a new one."})
        return attrs

    def _is_line(self, name: str) -> bool:
        """Whether a column is a text of one line that people read."""
        column = next((field for field in self.Meta.model._meta.concrete_fields if field.name == name), None)
        return isinstance(column, CharField)
