"""Attention over the memory: formulas, plain torch references, and Triton kernels. Imported as `refavs_rt.kernels`.

Nothing is imported here: started from a checkout, another package may import this folder under its bare name.
"""
