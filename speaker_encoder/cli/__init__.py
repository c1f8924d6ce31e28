"""The commands: `speaker-encoder <command>`."""
