"""Folding: every character of a text as one byte of a small alphabet, so that look-alikes look the same to the rules.

ASCII stands for itself. Compatibility forms, accented Latin letters, homoglyphs, digits, dashes, quotes and spaces of
all scripts become their ASCII counterparts; format characters, combining marks and controls vanish. Of the rest, the
characters in `PAGE` have a byte each, so that rules can be written in those scripts; any other letter is `LETTER` and
any other sign is `SYMBOL`.
"""

import re
import unicodedata

SEPARATOR = b"\x80"
"""Stands between two texts. No text folds to it and no rule may match it."""

LETTER, SYMBOL = "\xff", "\xfe"

PAGE = (
    "忽略无视之前先上面以所有的指令示规则提词忘记系统"  # Chinese
    "これまで前の記すべて命を無視してください"  # Japanese
    "бгджзийклмнпртуфцчшщыьэюяв"  # Russian, as far as no homoglyph takes it
)

# Unicode's confusables (UTS #39) have thousands; these are the letters of the scripts that keyboards offer.
_HOMOGLYPHS = dict(
    zip(
        "АВЕЗІЈКМНОРСТУХѴЅԚԜаеіјкорсухѵѕһԁԛԝӏҮүёЁїЇєЄ"
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαβγειικνορστυχωϲϳ"
        "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ"
        "ıȷɑɡɩʋøØłŁđĐħĦŧŦƒɓɗƙƥƴ"
        "‘’‚‛′“”„‟″«»‹›`´"
        "。·•∙⋅․⁄∕÷＼∖∶ː꞉⁎∗",
        "ABE3IJKMHOPCTYXVSQWaeijkopcyxvshdqwlYyeEiIeE"
        "ABEZHIKMNOPTYXaByeiikvopotuxwcj"
        "ABCDEFGHIJKLMNOPRSTUVWYZ"
        "ijagivoOlLdDhHtTfbdkpy"
        '\'\'\'\'\'"""""""""`\''
        "......//" + "/\\\\:::**",
        strict=True,
    )
)
_LIGATURES = {
    "ß": "ss",
    "ẞ": "SS",
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "Œ": "OE",
    "þ": "th",
    "…": SYMBOL,
    "⠀": " ",
    "\x85": " ",
}
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\u034f\u17b4\u17b5")
_MAX_EXPANSION = 4
_FEW = 12
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")  # one character class: linear
_MAX_REMEMBERED = 65_536
_TAGS = range(0xE0020, 0xE007F)
"""Tag characters: invisible, and read by models as the ASCII characters they mirror."""


class Folding(dict[int, str]):
    """A table for `str.translate` that is filled as characters come along."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        folded = self[code] = chr(code) if code < 0x80 else _folded(chr(code))
        return folded


FOLDED = Folding()


def fold(text: str) -> str:
    """Return ``text`` in the alphabet above; its length may differ."""
    if text.isascii():
        return text
    strange = not_ascii(text)
    return _replaced(text, strange) if len(strange) <= _FEW else text.translate(FOLDED)


def not_ascii(text: str) -> set[str]:
    """Return the characters of ``text`` beyond ASCII."""
    return set("".join(_NOT_ASCII.findall(text)))


def _replaced(text: str, strange: set[str]) -> str:
    # Several times faster than a table where most is ASCII. From the top of Latin-1 down, because what characters
    # become (`LETTER`, `SYMBOL`) are characters of its top themselves; what lies above it is never produced.
    for character in sorted(strange, key=lambda c: (c > "\xff", -ord(c))):
        text = text.replace(character, FOLDED[ord(character)])
    return text


def _folded(character: str) -> str:
    if character in _PAGED or character in _HOMOGLYPHS or character in _LIGATURES:
        return _simple(character)
    if ord(character) in _TAGS:
        return chr(ord(character) - 0xE0000)
    if character in _INVISIBLE or unicodedata.category(character) in ("Cf", "Cc", "Mn", "Me"):
        return ""
    if len(compatible := unicodedata.normalize("NFKC", character)) > _MAX_EXPANSION:
        return LETTER
    return "".join(map(_simple, compatible))


def _simple(character: str) -> str:
    if character.isascii():
        return character
    for table in (_LIGATURES, _HOMOGLYPHS, _PAGED):
        if character in table:
            return table[character]
    if (digit := unicodedata.digit(character, None)) is not None:
        return str(digit)
    return _by_base(character)


def _by_base(character: str) -> str:
    base = unicodedata.normalize("NFD", character)[0]
    if base != character and (base.isascii() or base in _HOMOGLYPHS):
        return _simple(base)
    category = unicodedata.category(character)
    if category[0] == "Z":
        return " "
    if category == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    if category in ("Mn", "Me", "Cf"):
        return ""
    return LETTER if category[0] in "LNM" else SYMBOL


def _paged() -> dict[str, str]:
    # 0xe0 and up is left free: a caseless match in Latin-1 takes those bytes for the ones 32 below.
    free = iter([*range(0x81, 0xB5), *range(0xB6, 0xDE)])
    page = {}
    for character in dict.fromkeys(PAGE):
        if character not in _HOMOGLYPHS:
            page[character] = page[character.upper()] = chr(next(free))
    return page


_PAGED = _paged()
