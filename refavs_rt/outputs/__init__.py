"""Where results go: an overlay as MP4 or pushed to a server, PNG masks, JSON lines, metrics, a function of yours."""
