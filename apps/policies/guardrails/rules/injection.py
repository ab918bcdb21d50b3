"""Prompt injections: phrases that try to replace, void or reveal the instructions a model was given.

The phrases are written in folded text; a blank in one stands for any run of spaces and signs. They are imperative and
name what they attack (instructions, rules, a system prompt), so that mail about mail is not taken for one.
"""

from collections.abc import Iterable

import re2

from apps.policies.guardrails.findings import Detector
from apps.policies.guardrails.folding import fold
from apps.policies.guardrails.rewriting import Span
from apps.policies.guardrails.rules.rule import Candidate, Rule

_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1

_GAP = r"(?:[^0-9A-Za-z\x80-\xfd\xff]+)"
_EDGE = r"(?:\b|_)"
"""Of a word; Markdown puts underscores beside it."""
_NARROW_GAP = r"[^0-9A-Za-z\x80-\xfd\xff]{0,2}"
_NEGATED = re2.compile(
    rb"(?i)\b(?:not|never|cannot|without|(?:do|does|did|ca|must|should|would|could|wo)n['`]?t)"
    rb"[^0-9A-Za-z]+(?:to[^0-9A-Za-z]+)?$",
    _OPTIONS,
)


def _unless_negated(candidate: Candidate) -> Iterable[Span]:
    return () if _NEGATED.search(candidate.before(16)) is not None else (candidate.span,)


def _phrase(name: str, pattern: str, hint: str = "") -> Rule:
    return Rule(Detector.INJECTION, name, _words(pattern), _unless_negated, hint=_words(hint) if hint else "")


def _words(pattern: str) -> str:
    gaps = pattern.replace(" ", _GAP)
    return rf"(?i){_EDGE}({gaps}){_EDGE}"


def _page(name: str, pattern: str) -> Rule:
    folded = "".join(rf"\x{ord(c):02x}" if ord(c) > 0x7F else c for c in fold(pattern))
    return Rule(Detector.INJECTION, name, f"(?i){folded}")


def _letters(words: str) -> str:
    return "|".join(_NARROW_GAP.join(word) for word in words.split("|"))


_VOID = (
    r"(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?|overlook|override|overrule|bypass|discard|neglect|"
    r"do not follow|don.?t follow|stop following|pay no attention to|do not obey|don.?t obey|disobey|skip)"
)
_EARLIER = (
    r"(?:previous(?:ly)?|prior|above|earlier|preceding|former|foregoing|aforementioned|past|last|original|initial|"
    r"existing|current)"
)
_OWN = r"(?:your|system|developer|hidden|built in|given|default|core|safety|security|content)"
_ALL = r"(?:all|any|every|each|of|the|these|those|this|that|my|and|or|other)"
_ORDERS = (
    r"(?:instructions?|prompts?|directives?|guidelines?|commands?|directions|orders|rules?|programming|training|"
    r"constraints?|restrictions?|system prompts?|system messages?|policies|safeguards|guardrails?|filters?|context)"
)
_BEFORE = r"(?:before|above|previously|earlier|so far|until now)"
_FOLLOW = (
    r"(?:above|before|earlier|previously|prior|you (?:were|have been|had been|got|received)|given|that came before)"
)
_VOID_HINT = rf"{_VOID} (?:{_ALL}|{_EARLIER}|{_OWN}|{_ORDERS})"
_SHOW = (
    r"(?:reveal|show|print|repeat|display|output|leak|expose|disclose|dump|share|recite|give|tell|return|what is|"
    r"what are|what s|what was|what were|spell out|read out|quote)"
)
_SHOW_OWN = (
    r"(?:reveal|show|print|repeat|display|output|leak|expose|disclose|dump|share|recite|give|tell|return|what is|"
    r"what are|what s|what was|what were|spell out|read out|quote|write|type|send|copy)"
)
_HIDDEN = (
    r"(?:system|hidden|secret|initial|original|internal|developer|confidential|full|entire|exact|complete|whole|"
    r"own|pre|custom|base|current)"
)
_PROMPT = r"(?:(?:system|hidden|secret|developer|confidential) (?:prompts?|instructions?)|pre ?prompt)"
_OWN_PROMPT = (
    r"(?:(?:system|hidden|secret|initial|original|internal|developer|confidential) "
    r"(?:prompts?|instructions?|messages?|directives?|rules|guidelines)|pre ?prompt)"
)
_FREE_PERSONA = (
    r"(?:dan|aim|stan|dude|jailbroken|unrestricted|unfiltered|uncensored|unbound|evil (?:ai|bot|assistant)|"
    r"free from (?:all |any )?(?:restrictions|rules|constraints)|free of (?:all |any )?(?:restrictions|rules|"
    r"constraints))"
)
_MODE = r"(?:developer|dev|debug|god|jailbreak|dan|sudo|root|admin|unrestricted|unfiltered|opposite|maintenance)"
_LIMITS = r"(?:restrictions?|rules?|guidelines?|filters?|limitations?|limits|constraints?|censorship|ethics|morals)"

_SPACED_VERBS = _letters("ignore|disregard|forget")
_SPACED_ARTICLES = _letters("all|any|the|your|my")
_SPACED_EARLIER = _letters("previous|prior|above|earlier|your")
_SPACED_ORDERS = _letters("instructions|instruction|prompts|prompt|rules|guidelines|commands")

_ENGLISH = (
    _phrase(
        "void_earlier_instructions",
        rf"{_VOID} (?:{_ALL} ){{0,4}}{_EARLIER} (?:(?:{_ALL}|{_OWN}|{_EARLIER}) ){{0,4}}{_ORDERS}",
        hint=_VOID_HINT,
    ),
    _phrase(
        "void_own_instructions",
        rf"{_VOID} (?:{_ALL} ){{0,3}}{_OWN} (?:(?:{_ALL}|{_OWN}|{_EARLIER}) ){{0,3}}{_ORDERS}",
        hint=_VOID_HINT,
    ),
    _phrase(
        "void_all_instructions",
        rf"{_VOID} (?:all|any|every)(?: (?:of|the|these|those|this|other)){{0,3}} (?:instructions?|directives?|rules|"
        r"guidelines|system prompts?|safeguards|guardrails?)",
        hint=_VOID_HINT,
    ),
    _phrase("void_instructions_above", rf"{_VOID} (?:{_ALL} ){{0,3}}{_ORDERS} {_FOLLOW}", hint=_VOID_HINT),
    _phrase(
        "void_everything",
        r"(?:ignore|disregard|forget) (?:everything|anything|all)(?: (?:that|of|else|was|is|i|we|they|have|been|"
        r"you)){0,4} "
        rf"(?:above|before this|(?:said|told|told you|wrote) {_BEFORE})",
    ),
    _phrase(
        "void_what_was_told",
        r"(?:ignore|disregard|forget) (?:everything|anything|all|what|whatever)(?: that)? (?:you were|you have been|"
        r"you ve been|"
        r"they|your developers|openai|anthropic)(?: have| ever)? (?:told|taught|instructed|trained|programmed)",
    ),
    _phrase(
        "reveal_system_prompt",
        rf"{_SHOW} (?:(?:me|us|back|out|to|verbatim) ){{0,2}}(?:(?:all|of|any|every)"
        rf" ){{0,2}}the (?:{_HIDDEN} ){{0,3}}{_PROMPT}",
        hint=_PROMPT,
    ),
    _phrase(
        "reveal_own_instructions",
        rf"{_SHOW_OWN} (?:(?:me|us|back|out|to|verbatim) ){{0,2}}(?:(?:all|of|any|every)"
        rf" ){{0,2}}your (?:{_HIDDEN} ){{0,3}}{_OWN_PROMPT}",
        hint=_OWN_PROMPT,
    ),
    _phrase(
        "reveal_text_above",
        r"(?:repeat|print|output|recite|display|copy|write) (?:back |out )?(?:all |of ){0,2}(?:the |everything |"
        r"every )(?:words?|text|content|lines?|instructions?|prompt)? ?(?:written |that is |that s |"
        r"that are )?above(?: starting| verbatim| word for word| this| exactly| in a| from)",
    ),
    _phrase(
        "persona",
        r"(?:you are|you re|you will be|you shall be) (?:now|going to be|going to act as|from now on|acting as|"
        rf"to act as)(?: (?:an?|in|as|the|called|named|acting|completely|fully|totally)){{0,3}} {_FREE_PERSONA}",
    ),
    _phrase(
        "act_as_persona",
        r"(?:act|behave|respond|answer|pretend|roleplay|play)(?: (?:as|like|to|be|the|role|of|an?)){1,5} (?:dan|"
        r"jailbroken|unrestricted|unfiltered|uncensored)(?: (?:ai|model|assistant|bot|chatbot|version|mode|llm))?",
    ),
    _phrase("do_anything_now", r"do anything now"),
    _phrase(
        "jailbreak_mode",
        r"(?:you are|you re|you will be)(?: (?:now|currently|operating|running|from|on)){0,3} in (?:a |"
        rf"the )?{_MODE} mode",
    ),
    _phrase(
        "enter_jailbreak_mode",
        r"(?:enter|activate|enable|switch (?:in)?to|turn on|start|initiate|engage)(?: (?:the|your|into|"
        r"to)){0,2} (?:god|jailbreak|dan|unrestricted|unfiltered|sudo|evil) mode",
    ),
    _phrase(
        "developer_mode",
        r"developer mode (?:enabled|activated|output|unlocked)|(?:enter|activate|enable|switch to|turn on|engage)"
        r" (?:your |the )?(?:developer|debug|maintenance|admin) mode (?:and |then |to |now )?(?:ignore|bypass|"
        r"disable|answer|respond|output|you|unlock|reveal|print|remove|without)",
    ),
    _phrase(
        "no_limits",
        r"(?:pretend|act|behave|respond|answer|imagine|speak)(?: (?:as|if|though|like|that|to me|to|freely|"
        r"me)){0,3}(?: you)? (?:have|had|are under|are bound by|follow) no(?: (?:ethical|moral|content|safety|"
        rf"usage|more|such)){{0,2}} {_LIMITS}|(?:respond|answer|reply|act|behave|operate|speak) without(?: (?:any|"
        rf"all|ethical|moral|content|safety|usage|your|the)){{0,3}} {_LIMITS}",
    ),
    _phrase(
        "no_longer_bound",
        r"(?:you are|you re) (?:no longer|not|not anymore) (?:bound|restricted|limited|constrained|"
        r"governed)(?: (?:by|to|any|the|your|openai|anthropic|all)){1,4}",
    ),
    _phrase(
        "bypass_safety",
        r"(?:bypass|disable|turn off|switch off|deactivate|remove|override|circumvent|evade) (?:all |any |"
        r"of ){0,2}your (?:own |internal |built in |ethical |content |safety |security |moral ){0,3}(?:filters?|"
        r"guidelines?|restrictions?|safeguards?|guardrails?|policies|policy|protocols?|rules|limits|limitations|"
        r"programming|checks|controls|measures)",
    ),
    _phrase(
        "new_system_prompt",
        r"(?:new|updated|revised|real|actual) system (?:prompt|instructions?|message|directive)|system (?:prompt|"
        r"message|instructions?) (?:override|overridden)|system override",
    ),
    _phrase(
        "system_prompt_markers",
        r"(?:begin|start|end)(?: of)?(?: the)?(?: new)? (?:system|hidden|secret|developer) (?:prompt|message|"
        r"instructions?)",
    ),
    Rule(
        Detector.INJECTION,
        "spaced_out_letters",
        rf"(?i)\b(?:{_SPACED_VERBS}){_NARROW_GAP}(?:(?:{_SPACED_ARTICLES}){_NARROW_GAP}){{0,2}}"
        rf"(?:{_SPACED_EARLIER}){_NARROW_GAP}(?:{_SPACED_ORDERS})",
        _unless_negated,
    ),
)

_TAGS = (
    Rule(
        Detector.INJECTION,
        "role_tag",
        r"(?i)<\|\s?(?:im_start|im_end|im_sep|system|assistant|user|endoftext|endofprompt|start_header_id|"
        r"end_header_id|eot_id|"
        r"begin_of_text|end_of_text|start_of_turn|channel|message|fim_prefix)\s?\|>(?:\s?(?:system|assistant|"
        r"developer|user))?",
    ),
    Rule(Detector.INJECTION, "instruction_tag", r"(?i)<</?SYS>>|\[/?INST\]|<(?:start|end)_of_turn>|</s>\s?<s>"),
    Rule(
        Detector.INJECTION,
        "system_tag",
        r"(?i)</system>|</?system[_ -]?(?:prompt|message|instructions?|override)>|"
        r"\[\s?system[_ -]?(?:prompt|message|override|instructions?)\s?\]|#{2,4}\s?system\s?(?:prompt|message)",
    ),
    Rule(
        Detector.INJECTION,
        "system_line",
        r"(?i)(?:^|[\n\x80])[ \t#*>\[-]{0,8}(system[ \t*\]]{0,4}:[\s*]{0,4}(?:you are|you must|ignore|disregard|forget|"
        r"override|new instructions)\b)",
    ),
)

_VOID_GERMAN = r"(?:ignorier(?:e|en sie|t)?|vergiss|vergessen sie|missachten?(?: sie)?|beachte nicht|uberspringe)"

_OTHER_LANGUAGES = (
    _phrase(
        "german",
        rf"{_VOID_GERMAN}(?: (?:bitte|mal|jetzt|alle|alles|die|der|deine|ihre|samtliche|diese|von|dir|"
        r"zuvor)){0,4} (?:vorherig|vorig|bisherig|obig|vorangegangen|vorhergehend|fruher|ursprunglich|vorgegeben|"
        r"system|deine|ihre)(?:e|en|er|es)?(?: (?:gegebenen|und|system))? ?(?:anweisung|instruktion|befehl|regel|"
        r"vorgabe|prompt|eingabe|richtlinie|hinweis|aufforderung)(?:e|en|s|n)?",
        hint=_VOID_GERMAN,
    ),
    _phrase(
        "german_own_instructions",
        r"(?:ignorier(?:e|en sie|t)?|vergiss|vergessen sie|missachten?(?: sie)?)(?: (?:bitte|alle|alles|"
        r"samtliche)){0,2} (?:deine|ihre|eure|alle) (?:anweisungen|instruktionen|befehle|regeln|vorgaben|"
        r"richtlinien|systemanweisungen)",
    ),
    _phrase(
        "german_reveal",
        r"(?:zeig|zeige|verrate|nenne|gib|wiederhole|offenbare|wie lautet|was ist)(?: (?:mir|uns|bitte|"
        r"mal)){0,3} (?:dein|deinen|deine|den|die|ihren|ihre|ihr|der) (?:vollstandigen? |gesamten? |geheimen? |"
        r"kompletten? ){0,2}(?:system ?prompts?|systemanweisung(?:en)?|systemnachricht|geheimen anweisungen)",
    ),
    _phrase(
        "french",
        r"(?:ignore[rz]?|oublie[rz]?|neglige[rz]?|ne tiens pas compte de|ne tenez pas compte de|fais abstraction de|"
        r"ne suis pas)(?: (?:toutes?|tous|les|des|tes|vos|ces|l|de|ensemble|mes)){0,4} (?:instructions?|consignes?|"
        r"regles?|directives?|ordres?|commandes?|invites?)(?: (?:qui|sont|donnees|systeme|de))*? (?:precedente?s?|"
        r"anterieure?s?|ci ?dessus|initiale?s?|d ?origine|avant|plus haut|du systeme)",
    ),
    _phrase(
        "french_earlier",
        r"(?:ignore[rz]?|oublie[rz]?)(?: (?:toutes?|tous|les|tes|vos)){0,3} (?:precedente?s|tes|vos)"
        r" (?:instructions?|consignes?|regles?|directives?)",
    ),
    _phrase(
        "french_reveal",
        r"(?:revele|revelez|affiche|affichez|montre|montrez|donne|donnez|repete|repetez|quel est|"
        r"quelles sont)(?: (?:moi|nous)){0,1} (?:ton|votre|le|tes|vos|les) (?:prompt|message|invite|instructions?|"
        r"consignes?)(?: (?:de|du|d))? (?:systeme|system)",
    ),
    _phrase(
        "spanish",
        r"(?:ignora|ignore|ignorad|olvida|olvide|olvidate de|omite|descarta|desatiende|no sigas|"
        r"haz caso omiso de)(?: (?:todas?|todos?|las|los|tus|sus|mis|estas|cualquier|"
        r"de)){0,4} (?:instruccion(?:es)?|reglas?|indicaciones|ordenes|directrices|comandos?|"
        r"mensajes? del sistema)(?: (?:que|dadas|son))*? (?:anterior(?:es)?|previas?|previos?|de arriba|iniciales|"
        r"precedentes|del sistema|originales)",
        hint=(
            r"(?:ignora|ignore|ignorad|olvida|olvide|olvidate de|omite|descarta|desatiende|no sigas|"
            r"haz caso omiso de)"
        ),
    ),
    _phrase(
        "spanish_earlier",
        r"(?:ignora|olvida|omite|descarta)(?: (?:todas?|todos?|las|los)){0,3} (?:anteriores|previas|tus)"
        r" (?:instrucciones|reglas|indicaciones|ordenes|directrices)",
    ),
    _phrase(
        "spanish_reveal",
        r"(?:revela|muestra|dime|muestrame|revelame|imprime|repite|dame|ensename|cual es|"
        r"cuales son)(?: (?:me)){0,1} (?:tu|el|las|tus|su) (?:prompt|mensaje|instrucciones|indicaciones)(?: (?:de|"
        r"del|inicial|oculto|secretas|ocultas))*? sistema",
    ),
    _phrase(
        "italian",
        r"(?:ignora|dimentica|trascura|ignorate|dimenticate)(?: (?:tutte?|tutti|le|gli|i|tue|"
        r"le tue)){0,4} (?:istruzioni|regole|indicazioni|direttive|comandi) (?:precedenti|di prima|sopra|iniziali|"
        r"di sistema)",
    ),
    _phrase(
        "portuguese",
        r"(?:ignore|ignora|esqueca|esquece|desconsidere)(?: (?:todas?|todos?|as|os|suas|tuas)){0,4} (?:instrucoes|"
        r"regras|ordens|diretrizes|comandos) (?:anteriores|previas|acima|iniciais|do sistema)",
    ),
    _phrase(
        "dutch",
        r"(?:negeer|vergeet|sla)(?: (?:alle|de|je|uw|al)){0,3} (?:vorige|eerdere|voorgaande|bovenstaande|"
        r"voorafgaande) (?:instructies|opdrachten|regels|aanwijzingen)",
    ),
    _phrase(
        "polish",
        r"(?:zignoruj|ignoruj|zapomnij o?|pomin)(?: (?:wszystkie|wszystkich)){0,1} (?:poprzednie|poprzednich|"
        r"wczesniejsze|wczesniejszych|powyzsze) (?:instrukcje|instrukcji|polecenia|polecen|zasady)",
    ),
    _page(
        "chinese",
        r"(?:忽略|无视|忘记)[^\x80-\xfd\n]{0,2}[之前先上面以所有的]{1,8}[^\x80-\xfd\n]{0,2}(?:系统)?(?:指令|指示|规则|提示词?)",
    ),
    _page("japanese", r"(?:これまで|以前|上記|前)[のすべて]{0,4}(?:指示|命令)[すべて]{0,3}を[すべて]{0,3}無視"),
    _page(
        "russian",
        r"(?:игнорируй|проигнорируй|забудь|игнорировать)(?:те)?[ ,]{1,3}(?:(?:все|всё|эти|свои|"
        r"твои)[ ,]{1,3}){0,3}(?:предыдущие|прежние|прошлые|вышеуказанные|свои|твои)[ ,]{1,3}(?:инструкции|указания|"
        r"команды|правила)",
    ),
)

RULES = (*_ENGLISH, *_TAGS, *_OTHER_LANGUAGES)
