"""Images and captions: from a folder to the batches of a run."""

from sd_lora.data.cache import Cache, cache_folder, check_cache
from sd_lora.data.captions import trigger_phrase, triggered
from sd_lora.data.encoded import Batch, EncodedSet, Encoders
from sd_lora.data.entries import Entry, Listing, TagRules
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Exposure, Group, Schedule, Seen
from sd_lora.data.findings import CODES, Finding, sentences
from sd_lora.data.seeds import generator_for
from sd_lora.data.views import Framing, View, views_of

__all__ = [
    "CODES",
    "Batch",
    "Cache",
    "EncodedSet",
    "Encoders",
    "Entry",
    "Example",
    "Exposure",
    "Finding",
    "Framing",
    "Group",
    "Listing",
    "Schedule",
    "Seen",
    "TagRules",
    "View",
    "cache_folder",
    "check_cache",
    "generator_for",
    "sentences",
    "trigger_phrase",
    "triggered",
    "views_of",
]
