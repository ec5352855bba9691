"""What the machine's memories and registers forbid."""


class AccessError(Exception):
    """What the machine forbids, with the numbers. The machine adds the instruction, and raises MachineFault."""
