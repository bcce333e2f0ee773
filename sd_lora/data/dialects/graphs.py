"""The positive prompt in a graph of ComfyUI, as it saves or as it runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: inputs that no text comes through
_ASIDE = {"negative", "clip", "model", "vae", "image", "images", "control_net", "latent_image", "pixels", "mask"}
_TEXTS = re.compile(r"(?:text|prompt|string|value|t5xxl|clip_l|populated|positive)", re.IGNORECASE)
_TEXT_NODES = re.compile(r"text|prompt|string|primitive", re.IGNORECASE)
#: id → the node's inputs: values, or links as (id, number of the output)
Graph = dict[str, dict[str, Any]]


def positive_of(content: Mapping[str, Any]) -> str | None:
    """The texts that reach a sampler as its positive prompt, with commas between them; None if `content` is not a
    graph."""
    graph = _of_workflow(content) if isinstance(content.get("nodes"), list) else _of_prompt(content)
    if not graph:
        return None
    starts = [inputs["positive"] for inputs in graph.values() if _link(inputs, "positive")]
    # guiders have one input, but so have the nodes that a negative prompt comes through
    starts = starts or [inputs["conditioning"] for inputs in graph.values() if _link(inputs, "conditioning")]
    texts: dict[str, None] = {}
    for start in starts:
        texts.update(dict.fromkeys(_texts_of(graph, str(start[0]))))
    return ", ".join(texts)


def _of_prompt(content: Mapping[str, Any]) -> Graph:
    """A graph as it is run: id → class and inputs."""
    nodes = {key: node for key, node in content.items() if isinstance(node, dict) and "class_type" in node}
    return {key: node["inputs"] for key, node in nodes.items() if isinstance(node.get("inputs"), dict)}


def _of_workflow(content: Mapping[str, Any]) -> Graph:
    """A graph as it is saved from the editor: nodes with their widgets' values, and links between them."""
    links = {link[0]: (str(link[1]), link[2]) for link in content.get("links") or () if _is_link_row(link)}
    graph: Graph = {}
    for node in content["nodes"]:
        if not isinstance(node, dict) or "id" not in node:
            continue
        inputs: dict[str, Any] = {}
        if _TEXT_NODES.search(str(node.get("type", ""))) and isinstance(node.get("widgets_values"), list):
            strings = [value for value in node["widgets_values"] if isinstance(value, str)]
            inputs = {f"text{number}": value for number, value in enumerate(strings)}
        for given in node.get("inputs") or ():
            if isinstance(given, dict) and isinstance(given.get("link"), int) and given["link"] in links:
                name = str(given.get("name"))
                inputs[name] = list(links[given["link"]])
                inputs.pop("text0" if name == "text" else "", None)  # a link replaces what its widget shows
        graph[str(node["id"])] = inputs
    return graph


def _is_link_row(link: object) -> bool:
    return isinstance(link, list) and len(link) >= 3 and isinstance(link[0], int)


def _link(inputs: Mapping[str, Any], name: str) -> bool:
    value = inputs.get(name)
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)


def _texts_of(graph: Graph, start: str) -> Iterator[str]:
    """The texts of the node `start` and of all that lead to it."""
    waiting, seen = [start], {start}
    while waiting:
        inputs = graph.get(waiting.pop(), {})
        for name, value in inputs.items():
            if isinstance(value, str):
                if _TEXTS.match(name) and value.strip():
                    yield value.strip()
            elif name not in _ASIDE and _link(inputs, name) and (source := str(value[0])) not in seen:
                seen.add(source)
                waiting.append(source)
