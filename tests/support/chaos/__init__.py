"""Chaos: workers in processes of their own share one real store while a seeded plan of faults is carried out.

`plan` draws what is submitted and what goes wrong, `run` carries it out, `facts` is what was seen of it, and `checks`
compares that, from outside, with what was promised. It must not know one store from another: a `rig` has the store.
"""
