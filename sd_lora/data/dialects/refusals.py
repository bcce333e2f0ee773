"""What stands where there is no caption: words for nothing, messages about errors, and refusals of models."""

from __future__ import annotations

import re

_NOTHING = (
    r"none|n\s?[/.]\s?a\.?|na|null|nan|nil|undefined|tbd|todo|not available|\[object Object\]|[-–—.?_*/\s]+",
    r"no[ _]?(?:caption|description|text|tags?|prompt|data|output|response|answer)(?: (?:available|provided"
    r"|found|given))?",
    r"(?:caption|description)[ _](?:not[ _](?:available|found)|missing)",
)
#: how a message about an error begins
_ERRORS = (
    r"(?:an? |the )?(?:\w+ )?(?:error|exception|fatal|failure)[\])*]*\s*(?:code\s*)?(?:\d{3}\s*)?:",
    r"\[(?:error|exception|fatal)\]|(?:error|failed|timed? ?out)[.!]?$|error\s*\d{3}[.!]?$",
    r"(?:[A-Za-z_]+\.)*(?-i:[A-Z])\w*(?-i:Error|Exception)\b\s*(?:[:(]|$)|exception in\b"
    r"|traceback \(most recent call last",
    r"error (?:generating|loading|processing|reading|opening|fetching|calling|while|in|during)\b",
    r"(?:failed|unable) to (?:generate|process|load|describe|caption|connect|open|read|fetch|download|analyz)",
    r"could not (?:generate|process|load|describe|connect|open|read)|http(?:/[\d.]+)? ?(?:error )?\d{3}\b",
    r"\d{3} (?:bad gateway|too many requests|internal server error|service unavailable|unauthorized|forbidden)",
    r"\d{3} not found\b.{0,3}$|an? (?:unexpected |unknown |internal )?error (?:has )?occurred|something went wrong",
    r"(?:torch\.)?(?:cuda|mps)(?: error)?:? out of memory|request (?:timed out|failed)|rate limit (?:exceeded|reached)",
    r"internal server error|too many requests|connection (?:refused|reset|timed out|error)|quota exceeded",
    r"(?:your |the |this )?(?:content|prompt|request) (?:was |has been |is )?(?:blocked|filtered|flagged|rejected)",
)
_CANNOT = (
    r"(?:can(?:no|['’])?t|can not|cannot|could(?: ?n['’]?t| not)|won['’]?t|will not|do(?: not|n['’]?t)"
    r"|did(?: not|n['’]?t)|am (?:not able|unable)|unable|not able)"
)
_DOING = (
    r"(?:help|assist|see|view|describe|provide|identify|comply|fulfil\w*|caption|generate|process|create|access|discuss"
    r"|continue|determine|recogni[sz]e|analy[sz]e|do (?:that|this)|have|feel|engage|produce|write|open|load|display"
    r"|tell|offer|support|respond|answer|find any|make out|give|share|comment)"
)
_SORRY = r"(?:sorry|apologies|my apologies|i apologi[sz]e)"
_PICTURE = r"(?:image|picture|photo|photograph|file)"
#: how a refusal begins
_REFUSALS = (
    r"(?:i['’]?m|i am)\s+(?:(?:so|very|really|deeply|truly|terribly)\s+)?(?:sorry|afraid|unable|not able"
    r"|not comfortable"
    r"|not allowed|not programmed|not designed|not permitted|(?:just |only )?an? (?:ai|large|language|text))\b",
    rf"{_SORRY}\b[^\n]{{0,80}}\b{_CANNOT}\b|{_SORRY}\s*[,.]?\s*(?:but|for the|for any)\b",
    rf"i\s+{_CANNOT}\b(?:[^\n]{{0,40}}\b{_DOING}\b|[^\n]{{0,30}}$)",
    rf"i\s+(?:must|have to|need to|would) (?:\w+ )?(?:decline|refuse)\b|i\s+need (?:to see |the |an? ){_PICTURE}",
    r"as an? (?:ai|artificial|large language|language|text-based|text based)\b",
    r"(?:there is |there['’]s )?no image (?:was |has been |is )?(?:provided|attached|uploaded|found|available|visible"
    r"|to describe)",
    rf"(?:please|could you(?: please)?) (?:provide|upload|share|attach|send|try)\b[^\n]{{0,40}}\b(?:{_PICTURE}|again)",
    rf"(?:the|this|your) {_PICTURE} (?:could|can)(?: ?not|n['’]t) be (?:loaded|displayed|processed|described"
    rf"|opened|read"
    r"|viewed|shown)",
    rf"(?:the|this|your|an|no) {_PICTURE} (?:is|was|has)(?: ?not|n['’]t)(?: been)? (?:provided|available"
    rf"|attached|loaded"
    r"|uploaded|visible|included|shown|supported)",
    rf"it (?:looks|seems|appears)(?: like| that)? (?:you (?:haven|didn|did not|have not|forgot)|there (?:is"
    rf"|was) no {_PICTURE}"
    rf"|there (?:is|was) an? (?:issue|problem|error)|no {_PICTURE}|(?:the|this|your) {_PICTURE} (?:is|did|was"
    r"|has)(?:n['’]t| not))",
    r"(?:this|the|your) (?:content|request|prompt|image)[^\n]{0,40}\b(?:violates?|against|blocked by"
    r"|flagged by)\b[^\n]{0,60}"
    r"\b(?:polic|guideline|filter|safety|terms)",
    r"抱歉|很抱歉|对不起|對不起|我(?:无法|無法|不能)|申し訳|すみません|죄송",
    r"(?:lo siento|es tut mir leid|tut mir leid|leider kann ich|je suis désolée?|désolée?|mi dispiace|desculpe"
    r"|me desculpe)\s*[,.]?\s*(?:pero|aber|mais|ma|mas|ich|je|das|no|non|não|dass?)\b",
)
_BEFORE = (
    r"(?:(?:oh|well|hmm|hello|hi|hey|unfortunately|regrettably|thank you[^.!,]{0,40}|thanks[^.!,]{0,40})[,.!]*\s+"
    r"(?:but\s+)?)?"
)
_IS_NOTHING = re.compile(rf"[\s\[(<{{]*(?:{'|'.join(_NOTHING)})[\s\])>}}.!]*", re.IGNORECASE)
_IS_ERROR = re.compile(rf"\s*[(*#]*(?:{'|'.join(_ERRORS)})", re.IGNORECASE)
_IS_REFUSAL = re.compile(rf"\s*{_BEFORE}(?:{'|'.join(_REFUSALS)})", re.IGNORECASE)
_NEAR = 600


def nothing_in(text: str) -> str:
    """What `text` is, if it stands where there is no caption, as a clause; else empty."""
    start = text[:_NEAR].strip()
    if not start or start.strip(" .") == "Nan":  # a grandmother
        return ""
    if all(_IS_NOTHING.fullmatch(part) for part in start.split(",")):
        return "a word for nothing"
    if _IS_ERROR.match(start):
        return "a message about an error"
    return "a model's refusal" if _IS_REFUSAL.match(start) else ""
