import preprocess  # noqa: F401  holds Ctrl-C back until the stage answers it
