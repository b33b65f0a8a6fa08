"""Functions of a Python project as operations and stages, each in a process of its own.

``python:module:function`` names one.  Tables go there and back as Arrow in shared memory, so that
the function may live in another environment, and may crash, without our process doing so.
"""
