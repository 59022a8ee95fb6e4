"""Evidence: what proves an erasure to somebody who does not trust the home."""
