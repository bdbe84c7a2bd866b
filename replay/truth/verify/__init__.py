"""Is the model true to a recording: the recorded kernel's own strategy on its own requests."""
