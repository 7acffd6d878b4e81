"""A trained selector in other programs: LangChain, DSPy, lmms-eval, MLflow, a server, a demo page.

Each needs an optional extra of the package, and only when it is used.
"""
