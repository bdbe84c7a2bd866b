"""What a nightly job asks: is anything worse than what was accepted, and has anything drifted."""
