"""How to run FlowKit somewhere: `local` for this machine."""
