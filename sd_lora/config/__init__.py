"""The typed config of a run: schema, reading, conflicts between settings, help and presets. No torch."""
