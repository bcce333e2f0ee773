"""Words of a caption that name a style or a medium, which the trigger word should learn instead: found and taken out.

A word counts only where it means the picture itself: before "of" at the head of a phrase ("a painting of a cat"),
as a phrase of its own ("a cat, oil painting"), with "style", after "in", or before a noun ("a cartoon cat"). "A woman
painting", "a painting on the wall" and "a photo frame" are content. A picture in the picture is not recognised: "a
painting of a horse hangs on the wall" loses its painting. What captioning models begin with, "the image shows" and "a
picture of", names no style but is taken out as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STYLE = (  # names a style anywhere
    r"(?:pixel|voxel|line|vector|digital|concept|fan|pop|op|ascii|clip)[- ]?art|low[- ]poly|cel[- ]shad(?:ed|ing)"
    r"|3-?d[- ]render(?:s|ed|ing|ings)?|cgi|claymation|ukiyo-e|art nouveau|art deco|cubis[mt]|pointillis[mt]|fauvis[mt]"
    r"|(?:(?:post-?|neo-?)?impression|expression|surreal|(?:photo|hyper)[- ]?real)is(?:m|ts?|tic)|monochrom(?:e|atic)"
    r"|gr[ea]y-?scale|sepia(?:[- ]toned?)?|chiaroscuro|half-?tone|cross-?hatch(?:ed|ing)|stippling"
    r"|impasto|anime|chibi|vaporwave|cartoonish|cartoony|hand[- ]drawn|ink wash|pen and ink"
)
_MEDIUM = (  # names a medium where it means the picture
    r"paintings?|drawings?|sketch(?:es)?|doodles?|illustrations?|photos?|photographs?|photography|snapshots?|polaroids?"
    r"|renders?|renderings?|watercolou?rs?|aquarelles?|gouaches?|pastels?|etchings?|engravings?|woodcuts?|linocuts?"
    r"|lithographs?|cyanotypes?|daguerreotypes?|(?:wood-?block|wood block|lino|screen|art) prints?|cartoons?|comics?"
    r"|caricatures?|collages?|frescoe?s?|mosaics?|manga"
)
_PICTURE = r"pictures?|images?|depictions?|artworks?|(?:pieces?|works?) of art"
_BEFORE_NOUN = r"watercolou?r|aquarelle|gouache|woodcut|linocut|cartoon|caricature|manga"
_MATERIAL = (
    r"oils?|acrylics?|inks?|pens?|pencils?|crayons?|charcoal|chalk|pastels?|tempera|gouache|watercolou?rs?"
    r"|colou?red pencils?|graphite"
)
_BLACK_WHITE = r"black[- ](?:and|&|n)[- ]white|b ?& ?w"
_ARTIST = (
    r"(?:vincent )?van gogh|(?:claude )?monet|(?:pablo )?picasso|rembrandt|(?:johannes )?vermeer|hiroshige|caravaggio"
    r"|(?:katsushika )?hokusai|(?:alphonse )?mucha|(?:gustav )?klimt|(?:salvador )?dal[ií]|(?:paul )?c[eé]zanne"
    r"|(?:henri )?matisse|(?:edgar )?degas|edvard munch|(?:albrecht )?d[uü]rer|edward hopper|(?:andy )?warhol"
    r"|(?:greg )?rutkowski|(?:pierre-auguste )?renoir|(?:wassily )?kandinsky|ansel adams|norman rockwell"
    r"|beatrix potter|(?:hayao )?miyazaki|(?:studio )?ghibli|pixar|disney"
)
_PRAISE = (
    r"beautiful|detailed|colou?rful|stunning|striking|amazing|charming|vivid|vibrant|realistic|simple|soft|delicate"
    r"|whimsical|intricate|traditional|minimalist|abstract|digital|flat|vintage|old"
)
_KNOWN = rf"(?:{_STYLE}|{_BLACK_WHITE}|{_BEFORE_NOUN}|{_ARTIST}|{_MATERIAL}|comic(?:[- ]book)?|storybook|sketch|line)"
_THINGS = (  # what follows a medium that is a thing: paint, a book, or the place where it is
    r"(?:paints?|sets?|box(?:es)?|brush(?:es)?|palettes?|paper|pads?|kits?|books?|magazines?|volumes?|shelf|shops?"
    r"|stores?|collections?|channels?|on|in|at|of|by|and|or|to|with|from|hangs?|hanging|is|are|lies|near|under|over)\b"
)
_STOP = (  # ends a name or a phrase of adjectives
    r"(?:an?|the|of|on|in|at|to|by|with|and|or|from|for|near|under|over|behind|beside|is|are|was|has|that|which|who|this"
    r"|there|it|he|she|holds?|(?:sitt|stand|walk|runn|hold|look|wear|ly|fly|play|rid|swimm|sleep|read|eat|float)ing)\b"
)
# Words are matched possessively and repetitions are bounded, so that no text takes long.
_ADJECTIVE = (
    rf"(?:{_BLACK_WHITE}|(?:{_MATERIAL}) (?:and|&) (?:{_MATERIAL})|(?:{_PRAISE}),?"
    rf"|(?!{_STOP})(?!\w++(?<=ing))[\w'’-]++)"
)
_NAME = rf"(?:the )?(?!{_STOP})[\w.'’-]++(?: (?:(?:and|of) (?!an? |the ))?(?!{_STOP})[\w.'’-]++){{0,4}}"
_ARTICLE = r"(?:an?|the|this|some|two|several) "
_THIS_IS = r"(?:this|it|the (?:image|picture)) (?:is|seems to be|appears to be) "
_SHOWS = r"(?:of|showing|depicting|featuring|portraying|(?:that |which )?(?:shows|depicts|features|portrays|captures))"
_IN_THIS = rf"in (?:this|the) (?:{_PICTURE}|{_MEDIUM})"
_USING = rf"(?:{_MATERIAL}|{_STYLE}|{_BLACK_WHITE}|3-?d)"

#: what a phrase begins with: "this is a watercolour painting of", "in this picture we can see"
_LEAD = re.compile(
    rf"(?:(?:{_THIS_IS})?(?:{_ARTICLE})?(?:{_ADJECTIVE} ){{0,6}}?"
    rf"(?P<word>(?:(?:{_KNOWN}) ){{0,3}}(?:{_MEDIUM}|{_STYLE}|(?P<neutral>{_PICTURE})))(?: by {_NAME})? {_SHOWS}"
    rf"|{_IN_THIS},? (?:we (?:can )?see|there (?:is|are))) (?=\w)",
    re.IGNORECASE,
)
#: a complete phrase that says nothing but the style, or nothing
_WHOLE = re.compile(
    rf"(?!\w++(?<=s)$)(?:{_THIS_IS})?(?:in |as )?(?:{_ARTICLE})?"
    rf"(?:(?:(?:very |highly )?(?:{_PRAISE})|{_KNOWN})(?:,| and| &)? ){{0,5}}"
    rf"(?:{_STYLE}|{_BLACK_WHITE}|{_ARTIST}|{_MEDIUM}|abstract"
    rf"|(?:{_KNOWN}|{_MEDIUM})[- ](?:style|art|artwork|aesthetic))(?: (?:and|&) (?:{_MATERIAL}))?"
    rf"(?: (?:on|in) (?:canvas|paper|panel|board|{_MATERIAL}|{_BLACK_WHITE}))?(?: by {_NAME})?"
    rf"|(?:the|this) (?:overall )?(?:{_MEDIUM}|{_PICTURE}|style|art style) (?:is|was|has been) "
    rf"(?:done|made|created|drawn|painted|rendered|executed|in (?:{_USING}|an? [^.]{{1,40}}style))\b.*"
    rf"|art(?:work)? by {_NAME}|by (?-i:[A-Z])[\w.'’-]++(?: (?-i:[A-Z])[\w.'’-]++){{0,3}}"
    rf"|(?P<bare>{_IN_THIS}|(?:{_ARTICLE})?(?:{_PICTURE}))",
    re.IGNORECASE,
)
#: inside a phrase, with the article that the next word then takes over
_INSIDE = re.compile(
    rf"(?<![\w-])(?P<article>an? )?(?P<word>in the styles? of {_NAME}"
    rf"|(?:in (?:an? |the )?)?{_KNOWN}(?: {_KNOWN})?[- ](?:inspired |art )?(?:styled?|aesthetic)"
    rf"|(?:painted|drawn|done|rendered|created|sketched|illustrated|photographed|shot) (?:in|with|using) {_USING}"
    rf"|(?<!written )in (?:watercolou?rs?|oils|acrylics?|charcoal|pencil|pastels|gouache|tempera|{_STYLE})$"
    rf"|(?<!dressed )(?<!clad )(?<!clothed )in (?:{_BLACK_WHITE})$"
    rf"|by (?:{_ARTIST})|(?:{_MATERIAL}|painted|drawn)(?= (?:(?:self-)?portrait|landscape|still life))"
    rf"|(?:{_MATERIAL}) on (?:canvas|paper|panel|board)|{_STYLE}|(?:{_BEFORE_NOUN})(?= (?!{_THINGS})\w))(?![\w-])",
    re.IGNORECASE,
)
_SENTENCE_END = r"[.!?]++(?= |$)"
# A comma after praise joins adjectives: "a beautiful, detailed painting of".
_SEPARATOR = re.compile(
    rf"((?<!beautiful)(?<!detailed)(?<!colorful)(?<!vivid)(?<!stunning)(?<!whimsical),(?!\d)|;|{_SENTENCE_END})"
)
#: where a word was taken out
_MARK = "\0"
_ARTICLE_BEFORE_MARK = re.compile(rf"\b(?P<article>an?) ?(?:{_MARK} ?)+(?P<next>\w{{0,6}})", re.IGNORECASE)
_VOWEL = re.compile(r"(?!uni(?!n|m)|use|eu|one)[aeiouáéíóúäöü]|hour|heir|honest", re.IGNORECASE)
#: what remains without a word may name a style again
_ROUNDS = 5
_DANGLING = frozenset(["a", "an", "and", "as", "by", "in", "is", "of", "on", "the", "with"])


@dataclass
class _Phrase:
    """The text between two punctuation marks, and the mark that ends it."""

    text: str
    end: str


def style_words_in(text: str) -> list[str]:
    """The words and phrases of `text` that name a style or a medium, in order, each once."""
    return list(dict.fromkeys(_filtered(text)[1]))


def without_style_words(text: str) -> str:
    """`text` on one line without its style words and with clean grammar; empty if it named nothing else."""
    return _filtered(text)[0]


def _filtered(text: str) -> tuple[str, list[str]]:
    """The text without its style words, and those."""
    text = " ".join(text.split())
    parts = [*_SEPARATOR.split(text), ""]
    words: list[str] = []
    kept: list[_Phrase] = []
    changed = False
    for part, end in zip(parts[::2], parts[1::2], strict=True):
        before = part.strip()
        after = before
        for _ in range(_ROUNDS if before else 0):
            again = _without(after, words)
            if again == after:
                break
            after = again
        changed |= after != before
        if after or not before:
            kept.append(_Phrase(after, end))
        elif kept and kept[-1].end in (",", ";"):
            kept[-1].end = end
    if not changed:
        return text, words
    result = " ".join(phrase.text + phrase.end for phrase in kept).strip(" ,;")
    return (_capital(result) if text[0].isupper() else result), words


def _without(phrase: str, words: list[str]) -> str:
    """One phrase without its style words, which are added to `words`."""
    if complete := _WHOLE.fullmatch(phrase):
        if not complete["bare"]:
            words.append(phrase)
        return ""
    start = 0
    while lead := _LEAD.match(phrase, start):
        if lead["word"] and lead["word"] != lead["neutral"]:
            words.append(lead["word"])
        start = lead.end()

    def mark(match: re.Match[str]) -> str:
        words.append(match["word"])
        return (match["article"] or "") + _MARK

    rest = _INSIDE.sub(mark, phrase[start:])
    rest = _ARTICLE_BEFORE_MARK.sub(_agree, rest).replace(_MARK, "")
    if rest == phrase:
        return phrase
    remaining = rest.split()
    while remaining and remaining[-1].lower() in _DANGLING:
        remaining.pop()
    result = " ".join(remaining)
    return _capital(result) if phrase[:1].isupper() else result


def _agree(match: re.Match[str]) -> str:
    """The article for the word that now follows it."""
    article = "an" if _VOWEL.match(match["next"]) else "a"
    return f"{_capital(article) if match['article'][0] == 'A' else article} {match['next']}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
