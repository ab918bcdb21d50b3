"""Money as integers of nano-USD (10^-9 USD): sums are exact in every database and in Python."""

from decimal import ROUND_CEILING, Decimal

NANO = 10**9


def nano_from_usd(usd: Decimal | str) -> int:
    """Turn US dollars into nano-USD, rounded up. Raises `decimal.InvalidOperation` for what is no number."""
    return int((Decimal(usd) * NANO).to_integral_value(rounding=ROUND_CEILING))


def usd_from_nano(nano: int) -> str:
    """Write nano-USD as dollars, at least two decimals and no trailing zeros beyond: ``"0.00125"``, ``"12.50"``."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    dollars, rest = divmod(nano, NANO)
    return f"{sign}{dollars}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"
