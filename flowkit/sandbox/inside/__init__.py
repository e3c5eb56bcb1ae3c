"""What runs on the other side of the wall: it makes the last namespaces, starts the program, reaps, counts and reports.

It needs nothing but Python's standard library, runs under any interpreter from 3.11 on, is put into the sandbox as a
folder of its own, and imports nothing of the rest of FlowKit.
"""
