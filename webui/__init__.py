"""The Gradio page (`sd-lora webui`)."""
