"""Many runs as one piece of work: what a table needs, in which order it is done, and the driver that sees to it."""
