"""A run seen from outside: its folder, state, process, control, logs and curves. No torch."""
