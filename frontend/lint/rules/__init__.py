"""The build checks, one file each."""
