"""What a person sees of a training: a line per epoch, a page that follows it, and whether it learned anything."""
