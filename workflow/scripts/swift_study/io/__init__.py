"""Files, processes and servers: what the rest reads, writes and asks with."""
