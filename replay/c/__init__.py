"""Allocators in C: a shared object in the form of replay_allocator.h, as one more strategy.

A shared object is opened only in a process of its own and only when named on the command line.
"""
