"""lbctl: what people and scripts ask of a running lbsvc, over its admin interface; and what helps beside it.

Promises: nothing here is imported by the service. Every command exits 0 when it is done, 1 when it failed or was
refused, 64 for wrong usage, 69 when the service cannot be reached, 78 for a wrong configuration. The door is main.py.
"""
