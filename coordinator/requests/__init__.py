"""What is asked and where it stands: pure values and decisions; no SQL, no clock, no files."""
