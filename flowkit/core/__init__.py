"""The pure heart of FlowKit: what a graph means, what a task's facts mean, and what follows from them.

Nothing here does I/O, reads a clock or throws dice: time, ids and placements are arguments.
"""
