"""The simulated provider's dialect: OpenAI's, to an origin inside the process."""

from dataclasses import replace

from apps.gateway.providers.base import Body, Endpoint, TokenBound, UpstreamRequest, Usage
from apps.gateway.providers.openai import OpenAIAdapter
from apps.gateway.simulated import SCHEME, choice_count, count_input, output_limit, produce, read_model

_BASE_URL = f"{SCHEME}local"


class SimulatedAdapter(OpenAIAdapter):
    """Speaks to the simulated provider, whatever base URL its endpoint names."""

    name = "simulated"

    def build_request(self, endpoint: Endpoint, model: str, body: Body) -> UpstreamRequest:
        """Build a chat completion for the simulated origin."""
        return super().build_request(_local(endpoint), model, body)

    def build_embeddings_request(self, endpoint: Endpoint, model: str, body: Body) -> UpstreamRequest:
        """Build an embeddings request for the simulated origin."""
        return super().build_embeddings_request(_local(endpoint), model, body)

    def bound(self, model: str, body: Body, size: int, context_window: int | None) -> TokenBound:
        """Give the usage that will be reported; its output is the request's own limit where there is one."""
        found = read_model(model)
        choices = choice_count(body)
        if found is None or choices is None:
            return TokenBound(0, 0)  # refused by the origin, and so without any usage
        usage = produce(found, body).usage
        each = output_limit(body)
        if each is None:
            each = usage.output_tokens if found.kind == "usage" else usage.output_tokens // choices
        return TokenBound(usage.input_tokens, each * choices)

    def expected(self, model: str, body: Body) -> Usage:
        """Give the usage that will be reported."""
        found = read_model(model)
        return produce(found, body).usage if found else Usage(0, 0)

    def estimate(self, body: Body, produced: str) -> Usage:
        """Count what a request used that ended after the text ``produced``."""
        return Usage(count_input(read_model(body.get("model")), body), len(produced.split()))


def _local(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, base_url=_BASE_URL, secret="")
