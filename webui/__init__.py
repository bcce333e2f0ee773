"""The Gradio page. It will stand here; until then `sd-lora preview` draws its strength sheets."""
