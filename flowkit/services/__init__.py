"""The five services of FlowKit's predecessors, each a process of its own: thin shells over what FlowKit is."""
