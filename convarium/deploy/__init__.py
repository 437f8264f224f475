"""Trained networks in the form that this machine runs fastest, shown to agree with the plain one."""
