"""Presets: TOML files that change some of the defaults of `sd_lora.config.schema`."""
