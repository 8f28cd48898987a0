"""EEMC in plain torch: the network that is trained, and the oracle of every engine."""
