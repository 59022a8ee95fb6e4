"""Requests: what is asked and where it stands; pure, without SQL, files or clock."""
