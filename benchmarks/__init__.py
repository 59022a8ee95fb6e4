"""Every figure in the README and the docs comes from a command in this folder."""
