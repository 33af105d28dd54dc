"""The history over HTTP: what `thingline serve` answers, and to whom.

AWS-shaped operations, which unmodified AWS clients ask, may have an instant before their path. Nothing here knows a
rule of the history: it reads requests, checks who asks, and renders.
"""
