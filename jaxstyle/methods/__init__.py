"""One room a method: its network, its training objective, its stylize."""
