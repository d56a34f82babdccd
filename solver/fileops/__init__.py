"""The actions of file ops, on folders."""
