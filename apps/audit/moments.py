"""Moments as people read them: UTC from the server, in the reader's own zone once the page's script has run.

The admin shows every time through this module, so that none is without its zone. ``static/control_plane/moments.js``
puts the reader's time in the place of UTC, which stays in the title.
"""

from datetime import UTC, datetime

from django.utils.html import format_html


def moment(when: datetime) -> str:
    """Return an aware time as HTML that says UTC, and that a browser turns into the reader's own."""
    utc = when.astimezone(UTC)
    return format_html(
        '<time class="cp-moment" datetime="{}" title="UTC {}">{} <span class="cp-zone">UTC</span></time>',
        f"{utc:%Y-%m-%dT%H:%M:%SZ}",
        f"{utc:%Y-%m-%d %H:%M:%S}",
        f"{utc:%Y-%m-%d %H:%M:%S}",
    )
