"""How good generated pictures are, judged by classifiers that are trained on real ones."""
