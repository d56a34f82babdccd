"""Source files laid out alike, without a change to what they build."""
