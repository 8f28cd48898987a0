"""The page of a running stream: its overlay, its sentences and its figures in a browser."""
