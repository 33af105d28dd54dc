"""Benchmarks beside their rivals, in one run: `pytest -n0 -m bench -s tests/bench`. They print, and assert no time."""
