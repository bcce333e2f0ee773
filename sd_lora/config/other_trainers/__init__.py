"""Other trainers' names for settings: one table, and what answers with it. No torch."""
