"""How fast the engine scores and the fit trains, measured side by side.

`python -m model.bench engine` and `python -m model.bench train` run on a machine that has torch and nothing else of
linewatch; `linewatch bench` adds a peer under the same clock. See docs/benchmarks.md.
"""
