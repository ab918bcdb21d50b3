"""What the API says of how a request ended."""

from typing import Any

from rest_framework import serializers


class DecisionSerializer(serializers.Serializer[Any]):
    """What the policies said of a request, decided again."""

    same = serializers.BooleanField(help_text="Whether it is what the record says.")
    allowed = serializers.BooleanField(allow_null=True, help_text="Null: refused before the policies were asked.")
    code = serializers.CharField(help_text="The code of the refusal, or nothing.")
    reasons = serializers.ListField(child=serializers.DictField())
    recorded = serializers.ListField(child=serializers.DictField(), help_text="The reasons that the record has.")
    unseen = serializers.ListField(child=serializers.CharField(), help_text="What the record does not show, in words.")


class StageSerializer(serializers.Serializer[Any]):
    """One stage of the path. Times in microseconds since the request came; null where the record does not say."""

    stage = serializers.CharField()
    title = serializers.CharField(help_text="What it decides, in words.")
    outcome = serializers.ChoiceField(choices=["passed", "ended", "not reached"])
    began_us = serializers.IntegerField(allow_null=True)
    took_us = serializers.IntegerField(allow_null=True)
    says = serializers.ListField(child=serializers.CharField())


class VersionAppliedSerializer(serializers.Serializer[Any]):
    """A policy in the version that applied."""

    id = serializers.CharField()
    name = serializers.CharField()
    version = serializers.IntegerField(allow_null=True)
    kind = serializers.CharField()
    mode = serializers.CharField()
    level = serializers.CharField()
    part = serializers.ChoiceField(choices=["refused", "would have refused", "applied"])
    says = serializers.CharField(allow_null=True, help_text="What that version says; null for the platform's.")


class LimitReadSerializer(serializers.Serializer[Any]):
    """A limit that was read, in words."""

    policy = serializers.CharField()
    policy_id = serializers.CharField()
    allows = serializers.CharField()
    left = serializers.CharField()
    asked = serializers.CharField()
    refused = serializers.BooleanField()


class FoundSerializer(serializers.Serializer[Any]):
    """What a guardrail found: a kind, a number and places, never the words."""

    detector = serializers.CharField()
    rule = serializers.CharField()
    count = serializers.IntegerField()
    where = serializers.CharField(help_text="input or output.")
    at = serializers.ListField(child=serializers.CharField(), help_text="Such as messages[2].content; a few of them.")
    action = serializers.CharField()
    policy = serializers.CharField()
    shadow_action = serializers.CharField()
    shadow_policy = serializers.CharField()


class AttemptSerializer(serializers.Serializer[Any]):
    """One call of a provider. Times in milliseconds since the request came."""

    provider = serializers.CharField()
    model = serializers.CharField()
    began_ms = serializers.IntegerField(allow_null=True)
    ended_ms = serializers.IntegerField(allow_null=True)
    status = serializers.IntegerField(allow_null=True)
    fault = serializers.CharField()
    says = serializers.CharField()
    worst_case_usd = serializers.CharField(allow_null=True, help_text="Charged, where it may have been billed.")


class ChargeSerializer(serializers.Serializer[Any]):
    """What the request cost, and by which price."""

    cost_usd = serializers.CharField()
    worst_case_usd = serializers.CharField(allow_null=True, help_text="What was held against budgets; null: nothing.")
    overrun_usd = serializers.CharField()
    tokens_input = serializers.IntegerField()
    tokens_output = serializers.IntegerField()
    tokens_cached = serializers.IntegerField()
    counted_by = serializers.CharField()
    price = serializers.CharField(help_text="In words.")


class StreamSerializer(serializers.Serializer[Any]):
    """How the answer was sent, and what guardrails could do meanwhile."""

    mode = serializers.CharField(help_text="whole, held, relayed, none or unknown.")
    says = serializers.CharField()


class DegradedSerializer(serializers.Serializer[Any]):
    """A part that was not what it should be."""

    part = serializers.CharField()
    says = serializers.CharField()


class WhySerializer(serializers.Serializer[Any]):
    """Why a request ended as it did, and the path that it went."""

    id = serializers.UUIDField()
    sentence = serializers.CharField(help_text="How it ended and why, for people.")
    notes = serializers.ListField(child=serializers.CharField(), help_text="What else is worth knowing.")
    status = serializers.CharField()
    http_status = serializers.IntegerField()
    error_code = serializers.CharField()
    latency_ms = serializers.IntegerField()
    ended_in = serializers.CharField(help_text="The stage that the request left last.")
    stages = StageSerializer(many=True)
    policies = VersionAppliedSerializer(many=True)
    limits = LimitReadSerializer(many=True)
    findings = FoundSerializer(many=True)
    route = serializers.ListField(child=serializers.DictField(), help_text="The targets in order, if several.")
    attempts = AttemptSerializer(many=True)
    cost = ChargeSerializer()
    stream = StreamSerializer()
    degraded = DegradedSerializer(many=True)
