"""Readers: whatever a graph comes in, one validated :class:`cluster.graph.Graph` comes out."""
