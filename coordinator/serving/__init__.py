"""Predictions and erasure requests over HTTP: office, replicas, ingress, console."""
