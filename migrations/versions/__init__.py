"""One file a revision, named NNNN_verb_object.py."""
