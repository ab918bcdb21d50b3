"""What is asked of the identity provider's server: within bounds, without redirects, and past no proxy."""

import time


def ask(
    method: str,
    url: str,
    *,
    silence_seconds: float,
    seconds: float,
    most_bytes: int,
    form: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send a request, with a form if one is given; return the answer's status and its body as it came.

    Raises `ValueError` for an answer of more than ``most_bytes`` or one that takes longer than ``seconds``, and
    ``httpx.HTTPError`` where none comes or the server is silent for ``silence_seconds``.
    """
    import httpx  # noqa: PLC0415 (a tenth of a second that only those with an identity provider need)

    deadline = time.monotonic() + seconds
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    body = bytearray()
    with (
        httpx.Client(timeout=silence_seconds, trust_env=False, follow_redirects=False) as client,
        client.stream(method, url, data=form, headers=headers) as response,
    ):
        for piece in response.iter_raw():
            body += piece
            if len(body) > most_bytes or time.monotonic() > deadline:
                raise ValueError("The answer was too long or too slow.")
    return response.status_code, bytes(body)
