"""The claims of the mail thread as experiments; each verdict follows from its figures.

The mail thread: "[PATCH v3 4/4] xen: add helpers to allocate unpopulated memory", xen-devel and
dri-devel, 27 and 28 July 2020 (ends with 20200728174242.GB7191). Beyond it: the gen_pool proposal
of 2022.
"""
