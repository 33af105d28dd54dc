"""Questions to the store and how their answers are shown."""
