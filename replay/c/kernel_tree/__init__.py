"""The kernel's own allocator files, compiled in user space, as a C allocator.

Nothing of the kernel is in this package: its files come at run time from a source tree, or from a
distribution's linux-source package.
"""
