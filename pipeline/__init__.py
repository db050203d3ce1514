"""The stream: images in, one event and one mask per image out, exactly once."""
