"""How many workers a server bears: what each call costs it, measured, and a simulated fleet that makes those calls."""
