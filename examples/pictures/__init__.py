"""How the example pictures are made: a photograph-like one and a painting-like one."""
