"""Floor 2: YAML to frozen settings, or every mistake in it with its place. The door is loader.py."""
