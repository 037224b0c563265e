"""An upper bound of a network's Lipschitz constant: what runs is recorded, and bounded call by call."""
