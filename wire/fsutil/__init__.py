"""The file transfer protocol under `moby.filesync.v1`, both ends, over any carrier of packets (tonistiigi/fsutil)."""
